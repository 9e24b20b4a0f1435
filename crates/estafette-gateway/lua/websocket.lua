-- The WebSocket protocol (RFC 6455) in Lua, on a raw socket. A server of the protocol `websocket` does the same
-- in Rust, several times faster: this is for scripts that want to see the frames.
--
--   local websocket = require("protocols/websocket")
--   function protocol_input(buf, conn) return websocket.input(buf, conn, "/chat") end
--   function protocol_decode(str, conn) return websocket.decode(str, conn) end
--   function protocol_encode(str) return websocket.encode(str) end
local websocket = { max = 1024 * 1024 - 14 }
local band, bor, bxor = bit.band, bit.bor, bit.bxor
local byte, char, sub = string.byte, string.char, string.sub
local GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
local READY = "websocket.ready"

local function headers(request)
    local found = {}
    for name, value in string.gmatch(request, "\r\n([^:\r\n]+):[ \t]*([^\r\n]*)") do
        found[string.lower(name)] = value
    end
    return found
end

local function shake(conn, request, path)
    local target = string.match(request, "^GET ([^ ?]+)[^ ]* HTTP/1%.1\r\n")
    local found = headers(request)
    local key = found["sec-websocket-key"]
    local upgrade = string.lower(found["upgrade"] or "")
    if not target or (path and target ~= path) or not key or #key ~= 24 or upgrade ~= "websocket"
        or found["sec-websocket-version"] ~= "13" then
        return false
    end
    local accept = mix.base64_encode(mix.sha1_bin(key .. GUID))
    websocket.raw(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        .. "Sec-WebSocket-Accept: " .. accept .. "\r\n\r\n")
    conn:set_context_value(READY, true)
    return true
end

-- A table goes through `encode`, which lets raw bytes pass.
function websocket.raw(conn, bytes)
    return conn:send({ raw = bytes })
end

function websocket.input(buf, conn, path)
    if not conn:context_value(READY) then
        local request = buf:tostring()
        local _, last = string.find(request, "\r\n\r\n", 1, true)
        if not last then
            return #request > 8192 and -1 or 0
        end
        return last
    end
    local head = buf:read(2)
    if not head then
        return 0
    end
    local first, second = byte(head, 1, 2)
    if band(first, 0x70) ~= 0 or band(second, 0x80) == 0 then
        return -1
    end
    local size, more = band(second, 0x7F), 0
    if band(first, 0x08) ~= 0 and (size > 125 or band(first, 0x80) == 0) then
        return -1
    end
    if size >= 126 then
        more = size == 126 and 2 or 8
        local bytes = buf:read(more)
        if not bytes then
            return 0
        end
        size = 0
        for place = 1, more do
            size = size * 256 + byte(bytes, place)
        end
    end
    if size > websocket.max then
        return -1
    end
    local whole = 2 + more + 4 + size
    return buf:length() >= whole and whole or 0
end

local function unmask(str, from, mask)
    local out, size = {}, #str - from + 1
    for place = 1, size do
        out[place] = char(bxor(byte(str, from + place - 1), mask[(place - 1) % 4 + 1]))
    end
    return table.concat(out)
end

function websocket.decode(str, conn, path)
    if not conn:context_value(READY) then
        if not shake(conn, str, path) then
            conn:close()
        end
        return nil
    end
    local first, second = byte(str, 1, 2)
    local size = band(second, 0x7F)
    local from = 3 + (size == 126 and 2 or size == 127 and 8 or 0)
    local mask = { byte(str, from, from + 3) }
    local data = unmask(str, from + 4, mask)
    local opcode, finish = band(first, 0x0F), band(first, 0x80) ~= 0
    if opcode == 0x9 then
        websocket.raw(conn, websocket.frame(0xA, data))
        return nil
    elseif opcode == 0x8 then
        websocket.raw(conn, websocket.frame(0x8, sub(data, 1, 2)))
        conn:close()
        return nil
    elseif opcode == 0xA then
        return nil
    end
    local kinds = { [0] = "continuation", [1] = "text", [2] = "binary" }
    if not kinds[opcode] then
        conn:close()
        return nil
    end
    return { type = kinds[opcode], data = data, finish = finish }
end

function websocket.frame(opcode, data)
    local size = #data
    local head = char(bor(0x80, opcode))
    if size < 126 then
        return head .. char(size) .. data
    elseif size < 65536 then
        return head .. char(126, math.floor(size / 256), size % 256) .. data
    end
    local bytes = {}
    for place = 8, 1, -1 do
        bytes[place] = char(size % 256)
        size = math.floor(size / 256)
    end
    return head .. char(127) .. table.concat(bytes) .. data
end

function websocket.encode(data)
    if type(data) == "table" and data.raw then
        return data.raw
    end
    return websocket.frame(0x1, data)
end

return websocket
