-- `prettyprint(value)` prints a value with everything in it; `print` does so for tables after this is required.
local plain = print

local function show(value, depth)
    if type(value) ~= "table" then
        return type(value) == "string" and string.format("%q", value) or tostring(value)
    end
    if depth > 8 then
        return "{...}"
    end
    local parts = {}
    for key, item in pairs(value) do
        parts[#parts + 1] = "[" .. show(key, depth + 1) .. "] = " .. show(item, depth + 1)
    end
    return "{ " .. table.concat(parts, ", ") .. " }"
end

function prettyprint(value)
    plain(show(value, 1))
end

function print(...)
    local values = { ... }
    for place = 1, select("#", ...) do
        local value = values[place]
        values[place] = type(value) == "table" and show(value, 1) or tostring(value)
    end
    plain(table.concat(values, "\t"))
end

return prettyprint
