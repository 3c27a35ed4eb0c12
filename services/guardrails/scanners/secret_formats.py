"""The shapes of credentials, as their issuers document them. Each expression is in RE2's syntax; its first group is the
secret.
"""

_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"

CLOUD: tuple[tuple[str, float, str], ...] = (
    ("AWS_ACCESS_KEY", 1.0, r"\b((?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16})\b"),
    ("AWS_SECRET_KEY", 1.0,
        r"(?i)aws[\w .-]{0,20}(?:secret|key)[\w .-]{0,20}[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+]"
        r"|$)"),
    ("AWS_BEDROCK_KEY", 1.0, r"\b(ABSK[A-Za-z0-9+/]{100,}={0,2}|bedrock-api-key-[A-Za-z0-9+/=]{20,})"),
    ("GOOGLE_API_KEY", 1.0, r"\b(AIza[A-Za-z0-9_-]{35})"),
    ("GOOGLE_OAUTH_TOKEN", 1.0, r"\b(ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{28}|1//0[A-Za-z0-9_-]{40,})"),
    ("AZURE_STORAGE_KEY", 1.0, r"(?i)(?:AccountKey|SharedAccessKey)=([A-Za-z0-9+/]{42,86}={1,2})"),
    ("AZURE_SAS_SIGNATURE", 0.95, r"[?&]sig=([A-Za-z0-9%+/]{40,90}(?:%3D|=))"),
    ("AZURE_CLIENT_SECRET", 0.95,
        r"(?:^|[^A-Za-z0-9_~.-])([A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})(?:[^A-Za-z0-9_~.-]|$)"),
    ("DIGITALOCEAN_TOKEN", 1.0, r"\b(do[opr]_v1_[0-9a-f]{64})\b"),
    ("HEROKU_KEY", 1.0, rf"\b(HRKU-(?:{_UUID}|AA[A-Za-z0-9_-]{{56,}}))"),
    ("CLOUDFLARE_KEY", 1.0, r"\b(v1\.0-[0-9a-f]{24}-[0-9a-f]{100,})\b"),
    ("ALIBABA_ACCESS_KEY", 1.0, r"\b(LTAI[A-Za-z0-9]{12,20})\b"),
    ("YANDEX_TOKEN", 1.0, r"\b(AQVN[A-Za-z0-9_-]{35,38}|t1\.[A-Z0-9a-z_-]+[=]{0,2}\.[A-Z0-9a-z_-]{86}[=]{0,2})"),
    ("FLY_TOKEN", 1.0, r"\b(fo1_[\w-]{43}|fm[12][ar]?_[A-Za-z0-9+/]{90,}={0,3})"),
    ("NETLIFY_TOKEN", 1.0, r"\b(nf[pcoub]_[A-Za-z0-9]{36,40})\b"),
    ("RENDER_KEY", 1.0, r"\b(rnd_[A-Za-z0-9]{28,36})\b"),
    ("SUPABASE_KEY", 1.0, r"\b(sbp_[0-9a-f]{40}|sb_secret_[A-Za-z0-9_-]{20,})"),
    ("PLANETSCALE_TOKEN", 1.0, r"\b(pscale_(?:tkn|pw|oauth)_[A-Za-z0-9=._-]{32,64})"),
    ("DATABRICKS_TOKEN", 1.0, r"\b(dapi[0-9a-f]{32}(?:-\d)?)\b"),
)  # fmt: skip

CODE: tuple[tuple[str, float, str], ...] = (
    ("GITHUB_TOKEN", 1.0, r"\b(gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})"),
    ("GITLAB_TOKEN", 1.0, r"\b(gl(?:pat|ptt|dt|rt|rtr|cbt|oas|ft|imt|agent|soat|ffct)-[A-Za-z0-9_.-]{20,})"),
    ("BITBUCKET_TOKEN", 1.0, r"\b(ATBB[A-Za-z0-9_=.-]{32})"),
    ("ATLASSIAN_TOKEN", 1.0, r"\b(AT[AC]TT3[A-Za-z0-9_=-]{60,})"),
    ("NPM_TOKEN", 1.0, r"\b(npm_[A-Za-z0-9]{36})\b"),
    ("PYPI_TOKEN", 1.0, r"\b(pypi-AgE[A-Za-z0-9_-]{50,})"),
    ("RUBYGEMS_KEY", 1.0, r"\b(rubygems_[0-9a-f]{48})\b"),
    ("CRATES_TOKEN", 1.0, r"\b(cio[A-Za-z0-9]{32})\b"),
    ("NUGET_KEY", 0.95, r"\b(oy2[a-z0-9]{43})\b"),
    ("CLOJARS_TOKEN", 1.0, r"\b(CLOJARS_[a-z0-9]{60})\b"),
    ("DOCKER_TOKEN", 1.0, r"\b(dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,})"),
    ("ARTIFACTORY_KEY", 0.95, r"\b(AKC[a-zA-Z0-9]{64,}|cmVmd[A-Za-z0-9]{59})\b"),
    ("TERRAFORM_TOKEN", 1.0, r"\b([A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,})"),
    ("VAULT_TOKEN", 1.0, r"\b(hv[sbr]\.[A-Za-z0-9_-]{24,})"),
    ("DOPPLER_TOKEN", 1.0, r"\b(dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9_.-]{40,})"),
    ("PULUMI_TOKEN", 1.0, r"\b(pul-[0-9a-f]{40})\b"),
    ("ONEPASSWORD_TOKEN", 1.0, r"\b(ops_eyJ[A-Za-z0-9+/]{100,}={0,2}|A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}"
        r"|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5})"),
    ("POSTMAN_KEY", 1.0, r"\b(PMAK-[0-9a-f]{24}-[0-9a-f]{34})\b"),
    ("SONAR_TOKEN", 1.0, r"\b(sq[upa]_[0-9a-f]{40})\b"),
    ("BUILDKITE_TOKEN", 1.0, r"\b(bkua_[0-9a-f]{40})\b"),
    ("CIRCLECI_TOKEN", 1.0, r"\b(CCIPAT_[A-Za-z0-9]{22}_[0-9a-f]{40})\b"),
)  # fmt: skip

MODELS: tuple[tuple[str, float, str], ...] = (
    ("ANTHROPIC_API_KEY", 1.0, r"\b(sk-ant-[A-Za-z0-9_-]{20,})"),
    ("OPENROUTER_KEY", 1.0, r"\b(sk-or-v1-[0-9a-f]{64})\b"),
    ("LANGFUSE_KEY", 1.0, rf"\b(sk-lf-{_UUID})\b"),
    ("OPENAI_API_KEY", 1.0, r"\b(sk-(?:proj-|svcacct-|admin-|service-|None-)?[A-Za-z0-9_-]{20,})"),
    ("GROQ_KEY", 1.0, r"\b(gsk_[A-Za-z0-9]{48,56})\b"),
    ("PERPLEXITY_KEY", 1.0, r"\b(pplx-[A-Za-z0-9]{48})\b"),
    ("XAI_KEY", 1.0, r"\b(xai-[A-Za-z0-9]{70,90})\b"),
    ("REPLICATE_TOKEN", 1.0, r"\b(r8_[A-Za-z0-9]{37})\b"),
    ("HUGGINGFACE_TOKEN", 1.0, r"\b((?:hf|api_org)_[A-Za-z0-9]{30,})\b"),
    ("LANGSMITH_KEY", 1.0, r"\b(lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10})\b"),
    ("PINECONE_KEY", 1.0, r"\b(pcsk_[A-Za-z0-9_]{50,})\b"),
    ("TAVILY_KEY", 0.95, r"\b(tvly-(?:dev-|prod-)?[A-Za-z0-9]{28,})\b"),
)  # fmt: skip

MESSAGING: tuple[tuple[str, float, str], ...] = (
    ("SLACK_TOKEN", 1.0, r"\b(xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{10,})"),
    ("SLACK_WEBHOOK", 1.0, r"(hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_+-]{20,})"),
    ("TEAMS_WEBHOOK", 1.0, r"([\w-]+\.webhook\.office\.com/webhookb2/[A-Za-z0-9@/_-]{40,})"),
    ("DISCORD_TOKEN", 0.9, r"\b([MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38})\b"),
    ("DISCORD_WEBHOOK", 1.0, r"(discord(?:app)?\.com/api/webhooks/\d{17,20}/[A-Za-z0-9_-]{60,})"),
    ("TELEGRAM_TOKEN", 1.0, r"\b(\d{8,10}:AA[A-Za-z0-9_-]{33})\b"),
    ("TWILIO_KEY", 0.9, r"\b(SK[0-9a-f]{32})\b"),
    ("SENDGRID_KEY", 1.0, r"\b(SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64})"),
    ("MAILGUN_KEY", 0.9, r"\b(key-[0-9a-f]{32}|[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8})\b"),
    ("MAILCHIMP_KEY", 0.95, r"\b([0-9a-f]{32}-us\d{1,2})\b"),
    ("BREVO_KEY", 1.0, r"\b(xkeysib-[0-9a-f]{64}-[A-Za-z0-9]{16})\b"),
    ("FACEBOOK_TOKEN", 0.95, r"\b(EAA[A-Za-z0-9]{60,})\b"),
    ("TWITTER_BEARER", 0.95, r"(A{15,}[A-Za-z0-9%]{60,})"),
)  # fmt: skip

COMMERCE: tuple[tuple[str, float, str], ...] = (
    ("STRIPE_KEY", 1.0, r"\b([rs]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{24,})"),
    ("SHOPIFY_TOKEN", 1.0, r"\b(shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32})\b"),
    ("SQUARE_TOKEN", 1.0, r"\b(sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,}|EAAA[A-Za-z0-9_-]{60})"),
    ("BRAINTREE_TOKEN", 1.0, r"(access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32})"),
    ("PLAID_TOKEN", 1.0, rf"\b((?:access|public|link)-(?:sandbox|development|production)-{_UUID})\b"),
    ("RAZORPAY_KEY", 0.95, r"\b(rzp_(?:live|test)_[A-Za-z0-9]{14,})\b"),
    ("FLUTTERWAVE_KEY", 1.0, r"\b(FLWSECK(?:_TEST)?-[A-Za-z0-9]{12,40}(?:-X)?)\b"),
    ("SHIPPO_TOKEN", 1.0, r"\b(shippo_(?:live|test)_[0-9a-f]{40})\b"),
    ("EASYPOST_KEY", 1.0, r"\b(EZ[AT]K[A-Za-z0-9]{54})\b"),
)  # fmt: skip

TOOLS: tuple[tuple[str, float, str], ...] = (
    ("GRAFANA_TOKEN", 1.0, r"\b(gl(?:c|sa)_[A-Za-z0-9_+/=]{32,}|eyJrIjoi[A-Za-z0-9]{60,}={0,2})"),
    ("NEWRELIC_KEY", 1.0, r"\b(NRAK-[A-Z0-9]{27}|NRII-[A-Za-z0-9-]{32}|NRJS-[0-9a-f]{19}|[0-9a-f]{36}NRAL)\b"),
    ("SENTRY_TOKEN", 1.0, r"\b(sntry[su]_[A-Za-z0-9+/=_]{60,})"),
    ("SENTRY_DSN", 0.9, r"(https://[0-9a-f]{32}(?::[0-9a-f]{32})?@[\w.-]*(?:sentry\.io|ingest\.[\w.-]+)/\d+)"),
    ("DYNATRACE_TOKEN", 1.0, r"\b(dt0[a-z]\d{2}\.[A-Z0-9]{24}\.[A-Z0-9]{64})\b"),
    ("LINEAR_API_KEY", 1.0, r"\b(lin_(?:api|oauth)_[A-Za-z0-9]{32,64})\b"),
    ("NOTION_TOKEN", 1.0, r"\b(secret_[A-Za-z0-9]{43}|ntn_[A-Za-z0-9]{40,50})\b"),
    ("AIRTABLE_TOKEN", 1.0, r"\b(pat[A-Za-z0-9]{14}\.[0-9a-f]{64})\b"),
    ("FIGMA_TOKEN", 1.0, r"\b(fig[dor]h?_[A-Za-z0-9_-]{38,})"),
    ("HUBSPOT_TOKEN", 1.0, rf"\b(pat-(?:na|eu)\d-{_UUID})\b"),
    ("TYPEFORM_TOKEN", 1.0, r"\b(tfp_[A-Za-z0-9_.=-]{40,})"),
    ("CONTENTFUL_TOKEN", 1.0, r"\b(CFPAT-[A-Za-z0-9_-]{43})"),
    ("MAPBOX_TOKEN", 1.0, r"\b([st]k\.eyJ[A-Za-z0-9_-]{40,}\.[A-Za-z0-9_-]{16,})"),
    ("TAILSCALE_KEY", 1.0, r"\b(tskey-(?:api|auth|client|scim|webhook)-[A-Za-z0-9]+-[A-Za-z0-9]{20,})\b"),
    ("AGE_SECRET_KEY", 1.0, r"(AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58})"),
    ("WIREGUARD_KEY", 0.95, r"(?:PrivateKey|PresharedKey)\s*=\s*([A-Za-z0-9+/]{43}=)"),
    ("WALLET_KEY", 1.0, r"\b([xyz]prv[1-9A-HJ-NP-Za-km-z]{100,112})\b"),
)  # fmt: skip

GENERIC: tuple[tuple[str, float, str], ...] = (
    ("PRIVATE_KEY", 1.0,
        r"(-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:[^-]*-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
        r"|(?:\s|\\[nr])*(?:(?:[A-Za-z0-9+/=\\]{16,}\s*)+|[A-Za-z0-9+/=\\]*\s*$)))"),
    ("PRIVATE_KEY", 1.0, r"(PuTTY-User-Key-File-\d:[^-]{10,}(?s:.{0,1000})Private-(?:Lines|MAC):(?s:.{0,1000}))"),
    ("JWT", 0.95, r"\b(eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})"),
    ("BEARER_TOKEN", 0.85, r"(?i)\bbearer\s+([A-Za-z0-9._~+/-]{20,}=*)"),
    ("BASIC_AUTH", 0.9, r"(?i)\bbasic\s+([A-Za-z0-9+/]{8,}={0,2})"),
    ("BASIC_AUTH", 0.85, r"(?:curl|wget|http|httpie)\b[^\n|;]{0,200}?\s(?:-u|--user|-a"
        r"|--auth)[ =]?[\"']?([\w.@+-]+:[^\s\"'$<>{}]{4,100})"),
    ("URL_CREDENTIALS", 0.9,
        r"[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s:/@\"'<>{}$]{0,100}:([^\s/@\"'<>{}$]{3,100})@[A-Za-z0-9\[]"),
    ("URL_CREDENTIALS", 0.85, r"https?://([A-Za-z0-9_-]{20,100})@[A-Za-z0-9\[]"),
)  # fmt: skip

# Issuers whose keys look like any other: their name and the word for a key stand before it.
NAMED_ISSUERS = (
    r"(?i)(?:^|[^a-z])(?:twilio|datadog|dd|algolia|okta|auth0|mailchimp|cloudflare|cf|pagerduty|asana|zendesk"
    r"|intercom|segment|amplitude|mixpanel|rollbar"
    r"|bugsnag|snyk|codecov|travis|jenkins|azure|openai|cohere|mistral|deepl|elevenlabs|deepgram|assemblyai|wandb"
    r"|weights|pinecone|weaviate|elastic|snowflake"
    r"|mongodb|confluent|heroku|vercel|linode|vultr|hetzner|scaleway|fastly|paypal|adyen|coinbase|binance|kraken"
    r"|plaid|dropbox|box|trello|jira|facebook"
    r"|instagram|linkedin|twitter|spotify|shodan|virustotal|lastpass|nexmo|vonage|messagebird|postmark|sparkpost"
    r"|pusher|ably|opsgenie|splunk|logdna|sumologic"
    r"|honeycomb|launchdarkly|optimizely|maxmind|mapbox|tomtom|openweather|alchemy|infura|etherscan)[\w .-]{0,24}?"
    r"(?:token|key|secret|sid|auth|password|pat)(?:[ _](?:value|string|id))?[\"'`]?\s{0,3}(?::|=>|:=|==?|\bis\b|\bwas\b"
    r"|,)?\s{0,3}[\"'`]?([A-Za-z0-9_./+=-]{20,100})"
)

_NAMES = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|pw|secret|token|api[ _-]?key|apikey|access[ _-]?key|auth[ _-]?key"
    r"|private[ _-]?key|signing[ _-]?key|encryption[ _-]?key"
    r"|master[ _-]?key|license[ _-]?key|client[ _-]?secret|credential|passwort|kennwort|mot de passe|contraseña"
    r"|contrasena|senha|wachtwoord|parola|hasło|пароль)"
)
ASSIGNMENT = (
    rf"(?i){_NAMES}s?[\w-]{{0,20}}(?:\s?\([^()\n]{{0,40}}\))?"
    r"[\"'`*]{0,3}\s{0,3}(?::|=>|:=|==?|\b(?:is|was|ist|est|es|è)(?: now| still)?\b(?:\s?:)?|->"
    r"|→)\s{0,3}[\"'`*]{0,3}([^\s\"'`,;<>(){}\[\]]{6,128})"
)
FLAG = (
    r"(?i)--(?:[\w]{1,20}-)?(?:password|passwd|token|secret|api-key|access-key|auth-token"
    r"|client-secret)[ =][\"']?([^\s\"'<>(){}$]{6,128})"
)

SPACED = (
    r"(?i)\b(?:token|api[ _-]?key|secret(?:[ _-]?key)?|access[ _-]?key|auth[ _-]?key"
    r"|password)\s{1,3}([A-Za-z0-9_./+=-]{20,128})"
)
"""A long value right after its name."""

ISSUED = (*CLOUD, *CODE, *MODELS, *MESSAGING, *COMMERCE, *TOOLS)
