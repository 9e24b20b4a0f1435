-- A protocol of packets that begin with their length: four bytes, most significant first, not counting themselves.
local length = { max = 1024 * 1024 - 4 }

function length.input(buf)
    local head = buf:read(4)
    if not head then
        return 0
    end
    local a, b, c, d = string.byte(head, 1, 4)
    local size = ((a * 256 + b) * 256 + c) * 256 + d
    if size > length.max then
        return -1
    end
    if buf:length() < size + 4 then
        return 0
    end
    return size + 4
end

function length.decode(str)
    return string.sub(str, 5)
end

function length.encode(str)
    local size = #str
    return string.char(bit.band(bit.rshift(size, 24), 255), bit.band(bit.rshift(size, 16), 255),
        bit.band(bit.rshift(size, 8), 255), bit.band(size, 255)) .. str
end

return length
