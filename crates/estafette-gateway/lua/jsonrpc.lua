-- A protocol of JSON lines: every packet is a value of JSON and a line feed. What is no JSON has no message.
local text = require("protocols/text")
local jsonrpc = { input = text.input }

function jsonrpc.decode(str)
    local value, err = mix.json_decode(text.decode(str))
    if err then
        mix.log(mix.WARN, "not JSON: " .. err)
        return nil
    end
    return value
end

-- A string is JSON already; anything else is made JSON.
function jsonrpc.encode(data)
    if type(data) ~= "string" then
        local json, err = mix.json_encode(data)
        if err then
            error(err)
        end
        data = json
    end
    return text.encode(data)
end

return jsonrpc
