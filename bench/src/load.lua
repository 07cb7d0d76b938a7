-- Sends the requests of a file repeatedly, in order: a line has method, path, token and body,
-- separated by tabs. Requests are formatted in advance, except those with {spare}, a placeholder for
-- a number that is unique to each request.
local heads, tails, count, at = {}, {}, 0, 0

function init(args)
  for line in io.lines(args[1]) do
    local method, path, token, body = line:match("^([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$")
    local headers = {}
    if token ~= "" then headers["Authorization"] = "Bearer " .. token end
    if body == "" then body = nil else headers["Content-Type"] = "application/json" end
    local request = wrk.format(method, path, headers, body)
    local first, last = request:find("{spare}", 1, true)
    count = count + 1
    heads[count] = first and request:sub(1, first - 1) or request
    tails[count] = first and request:sub(last + 1) or false
  end
  at = tonumber(args[2])
end

function request()
  local index = at % count + 1
  local tail = tails[index]
  local text = tail and heads[index] .. string.format("%012d", at) .. tail or heads[index]
  at = at + 1
  return text
end

-- Prints requests, duration, median and 99th percentile in microseconds, and errors.
function done(summary, latency)
  local errors = summary.errors
  print(string.format("DONE %.0f %.0f %.0f %.0f %.0f", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
