-- Load for wrk: chat completions, each with a question of its own, so that no cache answers; figures as a line of JSON.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY")

local number, start = 0, os.time()
local body = '{"model":"%s","messages":[{"role":"user","content":"Question %d-%d: please summarise the state of order 1234 '
  .. 'for the customer in two friendly sentences, with the next step."}]}'

function request()
  number = number + 1
  return wrk.format(nil, nil, nil, string.format(body, os.getenv("BENCH_MODEL"), start, number))
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"microseconds":%d,"p50":%d,"p95":%d,"p99":%d,"status":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
