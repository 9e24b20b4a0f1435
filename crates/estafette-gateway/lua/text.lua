-- A protocol of lines: every packet ends with a line feed, before which a carriage return may stand.
local text = {}

function text.input(buf)
    local place = string.find(buf:tostring(), "\n", 1, true)
    return place or 0
end

function text.decode(str)
    return (string.gsub(str, "\r?\n$", ""))
end

function text.encode(str)
    return str .. "\n"
end

return text
