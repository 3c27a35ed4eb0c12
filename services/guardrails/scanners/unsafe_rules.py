# ruff: noqa: E501 - an expression is read as one line
"""Code that does harm when it is run, or lets others do it: by what it says, in any language.

Sources: the CWE entries named beside the groups, and the manual pages of the commands.
"""

from __future__ import annotations

__all__ = ["PYTHON_RULES", "RULES"]

_ROOTS = r"[\"']?(?:/|/\*|~|~/\*?|\$HOME(?:/\*?)?|\$\{HOME\}(?:/\*?)?|/(?:etc|usr|var|home|boot|bin|lib|root|opt|srv|dev|sys)(?:/\*?)?|--no-preserve-root.*|\.\*|\*|[A-Za-z]:\\\\?\*?)[\"']?"
_END = r"(?:\s|$|[;&|)\"'`])"
_DISK = r"/dev/(?:sd[a-z]|hd[a-z]|nvme\d|vd[a-z]|xvd[a-z]|disk\d|mmcblk\d|mem|kmem)"
_INPUT = r"(?:\breq(?:uest)?\b|params\[|\bargv\b|\bargs\.|\buser_?[iI]nput|\bparams?\.|location\.(?:hash|search|href)|\$_(?:GET|POST|REQUEST|COOKIE|SERVER))"

RULES: tuple[tuple[float, str], ...] = (
    # Destruction of files, disks and systems
    (0.95, r"\brm\s+(?:-[a-zA-Z]+\s+|--[a-z-]+\s+)*(?:-[a-zA-Z]*[rR][a-zA-Z]*|--recursive)\s+(?:-[a-zA-Z-]+\s+)*" + _ROOTS + _END),
    (0.95, r"\brm\s[^\n|;&]{0,80}--no-preserve-root"),
    (0.6, r"\brm\s+-[a-zA-Z]*[rR][a-zA-Z]*\s+(?:-[a-zA-Z]+\s+)*[\"']?\$\{?\w+\}?[\"']?/(?:\*|\s|$|[\"'])"),
    (0.95, r"(?:\w+|:)\s*\(\)\s*\{\s*\S{1,20}\s*\|\s*\S{1,20}\s*&\s*\}\s*;|%0\s*\|\s*%0"),
    (0.95, r"\bdd\b[^\n|;]{0,100}\bof=" + _DISK + r"|>\s*" + _DISK + r"\b|\b(?:shred|wipefs|badblocks -w)\b[^\n]{0,60}" + _DISK),
    (0.95, r"\bmkfs(?:\.\w+)?\b[^\n]{0,60}/dev/\w+|\bmkswap\s+" + _DISK),
    (0.9, r"\b(?:mv|cp)\s+(?:-\w+\s+)*(?:/|/\*|~|\$HOME)\s+/dev/null|\bfind\s+/\s[^\n]{0,80}-(?:delete\b|exec\s+rm\b)"),
    (0.85, r"\bchmod\s+(?:-[a-zA-Z]+\s+)*(?:0?777|a\+rwx|ugo\+rwx|o\+w)\s+(?:-[a-zA-Z]+\s+)*(?:/(?:\s|$|\*|etc|usr|var|home|bin|root|opt|boot|lib)|~|\$HOME)"),
    (0.55, r"\bchmod\s+(?:-[a-zA-Z]*R[a-zA-Z]*)\s+(?:0?777|a\+rwx)\b|\bchmod\s+0?777\s+\S*(?:\.ssh|id_rsa|\.env|key|passwd|shadow|www|html|upload)"),
    (0.9, r"\bchmod\s+(?:u?\+s|[42-7]7[0-7]{2})\s+\S*/(?:ba|z|k|da)?sh\b|\bchown\s+-R\s+\S+\s+/(?:\s|$)"),
    (0.9, r"\bkill\s+-(?:9|KILL|SIGKILL)\s+-1\b|\bcrontab\s+-r\b|\buserdel\s+(?:-\w+\s+)?root\b"),
    (0.9, r"(?i)\b(?:format|deltree)\s+(?:/\w+\s+)*c:|\b(?:del|erase)\s+(?:/[a-z]\s+)*(?:/[sfq]\s+)+(?:[\"']?)(?:c:\\|%systemroot%|%userprofile%|\*\.\*)|\b(?:rd|rmdir)\s+(?:/[sq]\s+)+[\"']?(?:c:\\|%\w+%)"),
    (0.9, r"(?i)\bRemove-Item\b[^\n]{0,100}(?:-Recurse[^\n]{0,60}[\"' ](?:C:\\|\$env:|/|~)(?:[\"'\s*]|$)|(?:C:\\|\$env:(?:SystemRoot|USERPROFILE)|[\"' ]/)[\"'*]?\s[^\n]{0,40}-Recurse)|\bFormat-Volume\b|\bClear-Disk\b"),
    (0.95, r"(?i)\bvssadmin(?:\.exe)?\s+delete\s+shadows|\bwbadmin\s+delete|\bbcdedit\b[^\n]{0,60}recoveryenabled\s+no|\bwmic\s+shadowcopy\s+delete"),
    (0.85, r"(?i)\bcipher\s+/w:|\bwevtutil\s+cl\b|\bClear-EventLog\b|\bhistory\s+-c\b[^\n]*(?:;|&&)|\bunset\s+HISTFILE|>\s*/var/log/(?:auth|syslog|wtmp|secure)|\brm\s+[^\n]{0,40}(?:\.bash_history|/var/log)"),
    # Programs fetched and run unseen (CWE-494)
    (0.9, r"\b(?:curl|wget|fetch)\b[^\n|]{0,300}\|\s*(?:sudo\s+(?:-\w+\s+)*)?(?:env\s+\S+\s+)?(?:/\S*/)?(?:ba|z|k|da|c)?sh\b|\b(?:curl|wget)\b[^\n|]{0,300}\|\s*(?:sudo\s+)?(?:python\d?|perl|ruby|node|php)\b"),
    (0.85, r"\b(?:ba|z|k|da)?sh\s+(?:-\w+\s+)?(?:<\(\s*(?:curl|wget)|[\"']?\$\(\s*(?:curl|wget)|[\"']?`\s*(?:curl|wget))|\b(?:eval|source|\.)\s+[\"']?(?:\$\(|<\(|`)\s*(?:curl|wget)"),
    (0.85, r"\b(?:curl|wget)\b[^\n]{0,200}(?:&&|;)\s*(?:sudo\s+)?(?:chmod\s+\S*x\S*\s+\S+\s*(?:&&|;)\s*(?:sudo\s+)?\.?/|(?:ba)?sh\s+\S+\.sh\b)"),
    (0.95, r"(?i)\b(?:iex|invoke-expression)\b[^\n]{0,120}(?:downloadstring|invoke-webrequest|\biwr\b|net\.webclient|invoke-restmethod|\birm\b|frombase64string)|(?:downloadstring|\biwr\b|invoke-webrequest|\birm\b)[^\n]{0,200}\|\s*(?:iex|invoke-expression)\b"),
    (0.9, r"(?i)\bpowershell(?:\.exe)?\b[^\n]{0,150}\s-(?:e|en|enc|enco|encod|encode|encoded|encodedc\w*)\s+[\"']?[a-z0-9+/=]{16,}"),
    (0.8, r"(?i)\bpowershell(?:\.exe)?\b[^\n]{0,150}-(?:w(?:indowstyle)?\s+hidden)[^\n]{0,150}|(?:downloadfile|downloadstring)\([^\n]{0,200}(?:start-process|invoke-item|;\s*&)"),
    (0.9, r"(?i)\bcertutil(?:\.exe)?\b[^\n]{0,60}-urlcache|\bbitsadmin\b[^\n]{0,60}/transfer|\bmshta(?:\.exe)?\s+(?:https?:|javascript:|vbscript:)|\bregsvr32\b[^\n]{0,60}/i:http|\brundll32\b[^\n]{0,60}javascript:"),
    (0.9, r"\bbase64\s+(?:-d|-D|--decode)\b[^\n]{0,40}\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b|\|\s*base64\s+(?:-d|--decode)\s*\|\s*(?:ba)?sh\b|\bxxd\s+-r\b[^\n]{0,40}\|\s*(?:ba)?sh\b"),
    # Remote shells, persistence, credentials
    (1.0, r"/dev/(?:tcp|udp)/[\w.$\{\}-]+/\S+|\b(?:nc|ncat|netcat)\b[^\n]{0,100}\s(?:-\w*[ec]\w*|--(?:sh-)?exec)\s+[\"']?(?:/bin/|cmd|powershell|sh\b|bash\b)|\bmkfifo\b[^\n]{0,120}\b(?:nc|ncat|openssl)\b|\bsocat\b[^\n]{0,120}\bexec:", ),
    (1.0, r"(?s)\bsocket\.socket\([^\n]{0,200}.{0,400}\b(?:os\.dup2|subprocess\.(?:call|Popen|run)|pty\.spawn)\(.{0,200}(?:/bin/(?:ba)?sh|cmd\.exe|\bp(?:ty)?\.)|\bpty\.spawn\([\"']/bin/(?:ba)?sh|(?i:new-object\s+(?:system\.)?net\.sockets\.tcpclient)|\bfsockopen\([^\n]{0,150}(?:exec|proc_open|shell_exec|/bin/sh)|\buse\s+Socket;[^\n]{0,200}exec"),
    (0.9, r"(?:>>?|\btee\b(?:\s+-a)?)\s*/etc/(?:passwd|shadow|sudoers(?:\.d/\S+)?|crontab|cron\.d/\S+|ld\.so\.preload)\b|\bALL\s*=\s*\(ALL(?::ALL)?\)\s*NOPASSWD:\s*ALL|\bcat\s+/etc/shadow\b|\bunshadow\b"),
    (0.7, r">>?\s*(?:~|\$HOME|/root|/home/\w+)/\.ssh/authorized_keys|(?i)\breg(?:\.exe)?\s+add\b[^\n]{0,120}\\Run\b|\bnet\s+(?:user|localgroup)\s+\S+[^\n]{0,60}/add\b|\bschtasks\b[^\n]{0,60}/create[^\n]{0,150}(?:powershell|http|\.vbs|\.bat)"),
    (0.9, r"(?i)\bSet-MpPreference\b[^\n]{0,60}-Disable\w+\s+(?:\$true|1)|\bAdd-MpPreference\b[^\n]{0,40}-Exclusion|\bnetsh\s+(?:adv)?firewall\b[^\n]{0,60}(?:off|disable)|\bsekurlsa::|\bmimikatz\b|\bInvoke-Mimikatz|\bprocdump\b[^\n]{0,60}lsass"),
    (0.65, r"\biptables\s+(?:-F|--flush|-P\s+INPUT\s+ACCEPT)\b|\bufw\s+(?:--force\s+)?(?:disable|reset)\b|\bsetenforce\s+0\b|\bsystemctl\s+(?:stop|disable|mask)(?:\s+--now)?\s+(?:firewalld|auditd|apparmor|ufw|fail2ban|falcon)|\bSELINUX=disabled"),
    (0.6, r"(?i)\bSet-ExecutionPolicy\s+(?:-\w+\s+)?(?:Bypass|Unrestricted)|-ExecutionPolicy\s+Bypass|-ep\s+bypass"),
    (0.8, r"\bdocker\s+run\b[^\n]{0,150}(?:-v|--volume)[ =]/:/|\bdocker\s+run\b[^\n]{0,150}--privileged[^\n]{0,150}(?:-v|--volume)|/var/run/docker\.sock:/var/run/docker\.sock|\bnsenter\b[^\n]{0,60}-t\s*1\b|\bprivileged:\s*true\b"),
    (0.85, r"\b(?:xmrig|minerd|cpuminer|stratum\+tcp://)|\bLD_PRELOAD=/tmp/|(?:VirtualAllocEx|CreateRemoteThread|WriteProcessMemory|NtUnmapViewOfSection)\s*\("),
    (0.6, r"(?:\\x[0-9a-fA-F]{2}){16,}"),
    (0.75, r"(?s)\b(?:pynput|keyboard)\b.{0,300}\b(?:Listener\(|on_press|on_release|hook\().{0,400}(?:open\(|write\(|smtp|requests\.post)|\bGetAsyncKeyState\b|\bSetWindowsHookEx\w?\("),
    (0.8, r"(?s)\bos\.walk\(.{0,500}\.encrypt\(.{0,300}(?:write|os\.(?:remove|rename))"),
    # Transport security switched off (CWE-295)
    (0.7, r"\brejectUnauthorized\s*:\s*false|\bInsecureSkipVerify\s*:\s*true|\bNODE_TLS_REJECT_UNAUTHORIZED\W{0,12}0|CURLOPT_SSL_VERIFY(?:PEER|HOST)\s*,\s*(?:false|0|FALSE)|\bALLOW_ALL_HOSTNAME_VERIFIER|\bNoopHostnameVerifier|\bTrustAll\w*|ServerCertificateValidationCallback\s*[+=]*[^;\n]{0,80}true|\bVERIFY_NONE\b|\bdanger_accept_invalid_certs\(true|\bsslmode=disable\b|\bcheckServerTrusted\([^)]*\)\s*(?:throws\s+\w+\s*)?\{\s*\}"),
    (0.65, r"\bcurl\b[^\n|;]{0,150}\s(?:-k|--insecure|-[a-zA-Z]*k[a-zA-Z]*)\s|\bwget\b[^\n|;]{0,150}--no-check-certificate|\bhttp\.sslVerify\s+(?:=\s*)?false|\bGIT_SSL_NO_VERIFY|\bstrict-ssl\s+false|\bPYTHONHTTPSVERIFY=0|-SkipCertificateCheck\b|\bStrictHostKeyChecking[= ]no\b"),
    # SQL: data destroyed, or statements put together from input (CWE-89)
    (0.8, r"(?i)\bDELETE\s+FROM\s+[\w.`\"\[\]]+[ \t]*(?:;|\z|[\"']\s*[;)]|\n\s*(?:```|\n|\z))|\bDELETE\s+FROM\s+[\w.`\"\[\]]+\s+WHERE\s+(?:1\s*=\s*1|true)\b"),
    (0.75, r"(?im)\bUPDATE\s+[\w.`\"\[\]]+\s+SET\s+(?:[\w.`\"]+\s*=\s*(?:'[^'\n]*'|[\w.+*/ -]+?)\s*,?\s*){1,8}(?:;|$|[\"']\s*[;)])"),
    (0.75, r"(?i)\bDROP\s+(?:DATABASE|SCHEMA)\b|\bDROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?[\w.`\"\[\]]+|\bTRUNCATE\s+TABLE\s+\w+|\bdb\.dropDatabase\(\)|\.drop\(\)\s*;?\s*$|\bdeleteMany\(\s*\{\s*\}\s*\)|\bFLUSHALL\b"),
    (0.95, r"(?i)\bxp_cmdshell\b|\bsp_OACreate\b|\bINTO\s+(?:OUT|DUMP)FILE\s+['\"]|\bLOAD_FILE\s*\(\s*['\"]/|\bCOPY\s+\w+\s+(?:TO|FROM)\s+PROGRAM\b|\bWAITFOR\s+DELAY\s+'"),
    (0.8, r"(?i)['\"]\s*(?:OR|AND)\s+['\"]?1['\"]?\s*=\s*['\"]?1|\bUNION\s+(?:ALL\s+)?SELECT\b[^\n]{0,150}(?:information_schema|password|passwd|@@version|null,\s*null)|;\s*DROP\s+TABLE\s+\w+\s*;?\s*--"),
    (0.65, r"(?i)\bGRANT\s+ALL(?:\s+PRIVILEGES)?\s+ON\s+\*\.\*\s+TO\b|\bCREATE\s+USER\b[^\n]{0,80}'%'"),
    (0.8, r"(?i)[\"'`](?:SELECT\s[^\"'`\n]{1,300}\bFROM\b|INSERT\s+INTO\b|UPDATE\s[^\"'`\n]{1,200}\bSET\b|DELETE\s+FROM\b)[^\"`\n]{0,300}(?:[\"']\s*(?:\+|\.)\s*\$?[a-z_]\w*|\$\{[^}\n]+\}|\"\s*\.\s*\$|['\"]?\s*#\{|\{\$\w+)|(?i:\bf[\"']{1,3}(?:SELECT|INSERT|UPDATE|DELETE)\b[^\n]{0,300}\{\w)|(?i:Sprintf\(\s*[\"`](?:SELECT|INSERT|UPDATE|DELETE)\b[^\n]{0,300}%[svd])|(?i:String\.format\(\s*\"(?:SELECT|INSERT|UPDATE|DELETE)\b)"),
    (0.9, r"(?i)(?:mysql_query|mysqli_query|->query|->exec|pg_query|execute)\s*\([^;\n]{0,300}\$_(?:GET|POST|REQUEST|COOKIE)|[\"'](?:SELECT|INSERT|UPDATE|DELETE)\b[^;\n]{0,300}\$_(?:GET|POST|REQUEST|COOKIE)"),
    # Input that is run as code (CWE-94, CWE-78), or read as an object (CWE-502)
    (0.95, r"(?i)\b(?:eval|assert|create_function|preg_replace)\s*\(\s*[^)\n]{0,80}\$_(?:GET|POST|REQUEST|COOKIE)|\b(?:system|exec|shell_exec|passthru|popen|proc_open)\s*\([^)\n]{0,120}\$_(?:GET|POST|REQUEST|COOKIE)|`[^`\n]{0,80}\$_(?:GET|POST)|\beval\s*\(\s*(?:gzinflate|base64_decode|str_rot13)"),
    (0.85, r"(?i)\b(?:include|require)(?:_once)?\s*\(?\s*[^;\n]{0,40}\$_(?:GET|POST|REQUEST)|\bunserialize\s*\(\s*[^)\n]{0,40}\$|\bextract\s*\(\s*\$_(?:GET|POST|REQUEST)"),
    (0.6, r"\becho\s+[^;\n]{0,60}\$_(?:GET|POST|REQUEST)\["),
    (0.75, r"\beval\s*\(\s*(?:[a-zA-Z_$][\w$.]*(?:\(|\[|\s*\)|\s*\+)|" + _INPUT + r"|`[^`]*\$\{|await )|\bnew\s+Function\s*\([^)\n]{0,100}(?:" + _INPUT + r"|[a-zA-Z_]\w*\s*\))|\bvm\.runIn\w+\(|\bset(?:Timeout|Interval)\s*\(\s*[\"'`][^\"'`\n]{0,80}[\"'`]\s*\+"),
    (0.8, r"\b(?:child_process|cp|require\([\"']child_process[\"']\))\.exec(?:Sync)?\s*\(\s*(?:`[^`\n]*\$\{|[\"'][^\"'\n]*[\"']\s*\+|[a-zA-Z_]\w*(?:\.\w+)*\s*[,)])|\bexec(?:Sync)?\s*\(\s*(?:`[^`\n]*\$\{|[\"'][^\"'\n]*[\"']\s*\+\s*[a-zA-Z_])"),
    (0.75, r"\.(?:innerHTML|outerHTML)\s*\+?=\s*[^;\n]{0,120}(?:" + _INPUT + r"|\.value\b|\bdata\b|\bresponse\b|user|\bmsg\b|\bcomment\b|decodeURI)|\bdocument\.write(?:ln)?\s*\([^)\n]{0,80}(?:location|document\.(?:URL|referrer|cookie)|\.value)|\bdangerouslySetInnerHTML\s*=\s*\{\{\s*__html:\s*(?:props|user|data|\w+\.(?:body|content|html))"),
    (0.95, r"(?:fetch|Image\(\)|\.src|location(?:\.href)?\s*=|XMLHttpRequest|sendBeacon|\.open\()[^\n]{0,200}(?:document\.cookie|localStorage)|document\.cookie[^\n]{0,60}(?:fetch|http)"),
    (0.8, r"\bRuntime\.getRuntime\(\)\.exec\s*\([^;\n]{0,150}(?:\+|request|args|input|cmd|command)|\bnew\s+ProcessBuilder\s*\([^;\n]{0,60}(?:sh|cmd)[^;\n]{0,60}(?:-c|/c)[^;\n]{0,60}\+?\s*\w+\s*\)|\bexecute(?:Query|Update)?\s*\(\s*\"[^\"\n]*\"\s*\+"),
    (0.6, r"\bnew\s+ObjectInputStream\s*\(|\bBinaryFormatter\(\)|\bMarshal\.load\b|\bXMLDecoder\(|\bTypeNameHandling\.(?:All|Auto)|node-serialize|\benableDefaultTyping\("),
    (0.85, r"\b(?:system|exec|eval|instance_eval|class_eval|send|constantize|open|IO\.popen)\s*[( ]\s*(?:\"[^\"\n]*#\{[^}\n]*params|params\[)|`[^`\n]*#\{[^}\n]*params"),
    (0.75, r"\bexec\.Command(?:Context)?\([^)\n]{0,40}\"(?:/bin/)?(?:ba)?sh\",\s*\"-c\",\s*[a-zA-Z_\w.+\"\s]*[a-zA-Z_]\w*|\bCommand::new\(\"(?:ba)?sh\"\)[^;\n]{0,60}\.arg\(\"-c\"\)[^;\n]{0,60}\.arg\(&?\w+\)"),
    (0.6, r"\beval\s+[\"']?\$(?:\{?[1@*]|\{?(?:input|cmd|command|user\w*|REPLY|QUERY_STRING)\b)|\b(?:ba)?sh\s+-c\s+[\"']?\$(?:1|\{?(?:input|cmd|user\w*|QUERY_STRING)\b)"),
    # C: no bounds (CWE-120, CWE-134)
    (0.75, r"\bgets\s*\(\s*\w+\s*\)\s*;|\bscanf\s*\(\s*\"%s\"|\b(?:strcpy|strcat)\s*\(\s*\w+\s*,\s*(?:argv|optarg|getenv|user\w*|input\w*|src|name|data|buf\w*)\b|\bsprintf\s*\(\s*\w+\s*,\s*\"[^\"\n]*%s|\bprintf\s*\(\s*(?:argv\[|user\w*|input\w*|buf\w*|name|msg|str)\s*\]?\w*\]?\s*\)|\bsystem\s*\(\s*(?:argv\[|cmd|command|buf\w*|input\w*|user\w*)|\balloca\s*\(\s*(?:atoi|user|n\b)"),
)  # fmt: skip
"""(score, RE2 expression)."""

PYTHON_RULES: tuple[tuple[float, str], ...] = (
    (0.85, r"\bos\.(?:system|popen)\s*\(\s*(?:f[\"']|[\"'][^\"'\n]*[\"']\s*(?:\+|%|\.format)|[a-zA-Z_]\w*(?:\.\w+|\[)?|input\()|\bsubprocess\.\w+\s*\(\s*(?:f[\"']|[\"'][^\"'\n]*[\"']\s*(?:\+|%)|[a-zA-Z_]\w*)[^\n]{0,150}shell\s*=\s*True"),
    (0.85, r"\b(?:eval|exec)\s*\(\s*(?:input\(|request\.|sys\.argv|base64\.|compile\(|requests\.get|[a-zA-Z_]\w*\s*\)|zlib\.|bytes\.fromhex|__import__)"),
    (0.7, r"\b(?:c?[pP]ickle|dill|marshal|shelve|jsonpickle|cloudpickle)\.(?:loads?|open|decode)\s*\((?:[^)\n]{0,60}(?:request|recv|read\(|body|data|payload|cookie|content|user))|\byaml\.(?:unsafe_load|full_load)\(|\byaml\.load\s*\(\s*[\w.()'\", ]+\)(?:[^\n]{0,40}$)|\byaml\.load\([^)\n]*Loader\s*=\s*yaml\.(?:Unsafe|Full)?Loader|\btorch\.load\([^)\n]*weights_only\s*=\s*False|allow_pickle\s*=\s*True"),
    (0.7, r"\bverify\s*=\s*False|\bssl\._create_unverified_context|\bssl\.CERT_NONE|\bcheck_hostname\s*=\s*False|\bdisable_warnings\(\s*urllib3\.exceptions\.InsecureRequestWarning|\bssl\._create_default_https_context\s*=\s*ssl\._create_unverified_context"),
    (0.8, r"(?i)\.execute(?:many|script)?\s*\(\s*(?:f[\"']|[\"'][^\"\n]*[\"']\s*(?:%|\+|\.format))"),
    (0.9, r"\bshutil\.rmtree\s*\(\s*[\"'](?:/|~|C:\\\\|/home|/etc|/usr|/var)[\"']|\bos\.fork\(\)[^\n]{0,40}while|while\s+(?:True|1)\s*:\s*(?:\n\s*)?os\.fork\(\)|__import__\(\s*[\"']os[\"']\s*\)\.(?:system|popen)"),
    (0.7, r"\brender_template_string\s*\([^)\n]{0,60}(?:request|user|f[\"']|\+|%)|\bTemplate\(\s*request\.|\bapp\.run\([^)\n]*debug\s*=\s*True[^)\n]*0\.0\.0\.0|\bapp\.run\([^)\n]*0\.0\.0\.0[^)\n]*debug\s*=\s*True"),
    (0.6, r"\bhashlib\.(?:md5|sha1)\s*\([^)\n]{0,40}pass(?:word|wd)?|\btempfile\.mktemp\(|\bAutoAddPolicy\("),
)  # fmt: skip
"""The same for Python that does not parse; what parses is judged by its syntax tree."""
