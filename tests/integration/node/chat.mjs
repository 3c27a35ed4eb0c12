// What the npm package `openai` makes of the edge: node chat.mjs BASE_URL API_KEY MODEL, one JSON document on stdout.
import OpenAI from "openai";

const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const question = (content) => [{ role: "user", content }];
const weather = {
  type: "function",
  function: {
    name: "weather",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

async function refused(call) {
  try {
    await call();
    return null;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code, param: error.param };
  }
}

async function streamed(body) {
  const texts = [];
  const calls = [];
  let usage = null;
  let finish = null;
  const stream = await client.chat.completions.create({
    model, stream: true, stream_options: { include_usage: true }, ...body,
  });
  for await (const chunk of stream) {
    usage = chunk.usage ?? usage;
    for (const choice of chunk.choices) {
      finish = choice.finish_reason ?? finish;
      if (choice.delta.content) texts.push(choice.delta.content);
      for (const call of choice.delta.tool_calls ?? []) calls.push(call.function);
    }
  }
  return { text: texts.join(""), calls, finish, usage };
}

const models = [];
for await (const each of client.models.list()) models.push(each.id);

const asked = await client.chat.completions.create({ model, messages: question("How long?") }).withResponse();
const called = await client.chat.completions.create({ model, messages: question("Weather?"), tools: [weather] });
const call = called.choices[0].message;
const told = await client.chat.completions.create({
  model,
  tools: [weather],
  messages: [...question("Weather?"), call, { role: "tool", tool_call_id: call.tool_calls[0].id, content: "12 degrees" }],
});
const json = await client.chat.completions.create({
  model,
  messages: question("Which city?"),
  response_format: {
    type: "json_schema",
    json_schema: { name: "place", schema: weather.function.parameters, strict: true },
  },
});

console.log(
  JSON.stringify({
    models,
    answer: asked.data.choices[0].message.content,
    id: asked.data.id,
    requestId: asked.request_id,
    call: call.tool_calls[0].function,
    told: told.choices[0].message.content,
    json: json.choices[0].message.content,
    stream: await streamed({ messages: question("How long?") }),
    toolStream: await streamed({ messages: question("Weather?"), tools: [weather] }),
    unknownModel: await refused(() => client.chat.completions.create({ model: "nothing", messages: question("x") })),
    wrongKey: await refused(() =>
      new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).chat.completions.create({ model, messages: question("x") }),
    ),
    misshapen: await refused(() => client.chat.completions.create({ model, messages: question("x"), temperature: 3 })),
  }),
);
