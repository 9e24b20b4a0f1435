-- Runs before every script: takes away what a script must not have, and calls its callbacks.
--
-- Every callback runs in a coroutine, so that `wait_context_value` can hold it. What waits is kept here, by the number
-- of its connection: the host could hold only some thousands of references.

local host = ...

local create, resume, yield, running = coroutine.create, coroutine.resume, coroutine.yield, coroutine.running
local pcall, type, setmetatable, error, tostring = pcall, type, setmetatable, error, tostring
local find, rep, gsub, gmatch, match, byte = string.find, string.rep, string.gsub, string.gmatch,
    string.match, string.byte
local rawload, ipairs = loadstring, ipairs

local globals = _G
local WAIT, DONE = {}, {}
local POOL_MAX = 64
local waiting, pool = {}, {}
-- The number of the connection whose callback runs, and that callback's coroutine.
local current, active

-- What is taken away --------------------------------------------------------------------------------------------

dofile, loadfile, newproxy, module = nil, nil, nil, nil
string.dump = nil
os = { time = os.time, clock = os.clock, date = os.date, difftime = os.difftime }
package.loadlib, package.searchpath, package.loaders, package.cpath = nil, nil, nil, ""
if not host.is_stoppable then
    jit.off()
    jit.flush()
end
-- What was taken away must not come back by `require`.
jit = nil
for name in pairs(package.loaded) do
    if string.sub(name, 1, 3) == "jit" then
        package.loaded[name] = nil
    end
end
package.loaded.os = os
local collect = collectgarbage
function collectgarbage(what)
    return collect(what == "count" and "count" or "step")
end

local function text_only(chunk, name)
    if type(chunk) ~= "string" then
        return nil, "only text can be loaded"
    end
    if byte(chunk, 1) == 27 then
        return nil, "bytecode cannot be loaded"
    end
    return rawload(chunk, name)
end
load, loadstring = text_only, text_only

-- String functions are not interruptible: what they may be asked for is bounded by an estimate of their work.
local RESULT_MAX, WORK_MAX = 8 * 1024 * 1024, 4e9

function string.rep(text, n, separator)
    local length = #tostring(text) + #(separator or "")
    if length * (n or 0) > RESULT_MAX then
        error("string.rep: the result would be too long", 2)
    end
    if separator and n > 1 then
        return rep(text .. separator, n - 1) .. text
    end
    return rep(text, n)
end

local function bounded(text, pattern)
    text, pattern = tostring(text), tostring(pattern)
    local quantifiers = 0
    for place = 1, #pattern do
        local sign = byte(pattern, place)
        -- * + - ?
        if sign == 42 or sign == 43 or sign == 45 or sign == 63 then
            quantifiers = quantifiers + 1
        end
    end
    if byte(pattern, 1) ~= 94 then
        quantifiers = quantifiers + 1
    end
    local work = 1
    for n = 1, quantifiers do
        work = work * (#text + 1) / n
    end
    if work > WORK_MAX then
        error("the pattern could take too long on a text of this length", 3)
    end
end

function string.find(text, pattern, from, plain)
    if not plain then bounded(text, pattern) end
    return find(text, pattern, from, plain)
end
function string.match(text, pattern, from) bounded(text, pattern) return match(text, pattern, from) end
function string.gmatch(text, pattern) bounded(text, pattern) return gmatch(text, pattern) end
function string.gsub(text, pattern, with, n) bounded(text, pattern) return gsub(text, pattern, with, n) end

-- Modules: files beside the script --------------------------------------------------------------------------------

local loaded = package.loaded
function require(name)
    local module = loaded[name]
    if module ~= nil then
        return module
    end
    local source, path = host.module(name)
    if not source then
        error("module '" .. tostring(name) .. "' is not there: " .. tostring(path), 2)
    end
    local chunk, problem = text_only(source, "@" .. path)
    if not chunk then
        error(problem, 2)
    end
    loaded[name] = true
    local value = chunk(name)
    if value ~= nil then
        loaded[name] = value
    end
    return loaded[name]
end

-- Connections ---------------------------------------------------------------------------------------------------

local Connection = {}
Connection.__index = Connection
Connection.__metatable = false

local function connection(number)
    return setmetatable({ number }, Connection)
end

for _, name in ipairs({ "client_id", "remote_addr", "context", "context_value", "set_context", "set_context_value",
    "subscribe", "unsubscribe", "close", "clear_buffer" }) do
    local call = host[name]
    Connection[name] = function(self, ...) return call(self[1], ...) end
end

local calls = {}

-- A table is what only the script's own protocol can turn into bytes.
function Connection:send(data, kind)
    if type(data) ~= "table" or not protocol_encode then
        return host.send(self[1], data, kind)
    end
    local bytes, problem = calls.encode(self[1], data)
    if not bytes then
        return problem
    end
    return host.send_raw(self[1], bytes)
end

function Connection:wait_context_value(key)
    local number = self[1]
    if host.has_context_value(number, key) then
        return host.context_value(number, key)
    end
    if number ~= current or not active or running() ~= active then
        return nil, "wait_context_value waits only in a callback of its own connection, and in no coroutine of the script"
    end
    local ok, wake = pcall(yield, WAIT, key)
    if not ok then
        return nil, "wait_context_value cannot wait here: " .. tostring(wake)
    end
    if wake == "set" then
        return host.context_value(number, key)
    end
    return nil, wake
end

-- What protocol_input gets: the bytes that are there, and how many of them were read.
local Buffer = {}
Buffer.__index = Buffer
Buffer.__metatable = false
function Buffer:tostring() return host.buffer(self[1], 0, -1) end
function Buffer:length() return host.buffer_length(self[1]) end
function Buffer:position() return self[2] end
function Buffer:read(n)
    local bytes, problem = host.buffer(self[1], self[2], n)
    if bytes then
        self[2] = self[2] + #bytes
    end
    return bytes, problem
end

function mix.websocket() return current and connection(current) end
mix.socket = { tcp = mix.websocket }

-- Calling the script ----------------------------------------------------------------------------------------------

local function once(call, ...) call(...) end

local function worker(call, ...)
    call(...)
    while true do
        once(yield(DONE))
    end
end

-- 0: done. 1: waits for a key. 2: failed, with a message.
local function step(number, thread, ...)
    local before, before_active = current, active
    current, active = number, thread
    local ok, signal, key = resume(thread, ...)
    current, active = before, before_active
    if not ok then
        return 2, tostring(signal)
    end
    if signal == DONE then
        if #pool < POOL_MAX then
            pool[#pool + 1] = thread
        end
        return 0
    end
    if signal == WAIT then
        waiting[number] = thread
        return 1, key
    end
    return 2, "a callback yielded"
end

local function start(number, call, ...)
    local thread = pool[#pool]
    if thread then
        pool[#pool] = nil
    else
        thread = create(worker)
    end
    return step(number, thread, call, ...)
end

function calls.message(number, kind, data)
    local message = { type = kind, data = data, finish = true }
    if host.abi == 1 then
        return start(number, on_message, message, connection(number))
    end
    return start(number, on_message, message)
end

function calls.handshake(number, headers, server)
    if not on_handshake then return 0 end
    if host.abi == 1 then
        return start(number, on_handshake, headers, connection(number))
    end
    return start(number, on_handshake, host.id(number), headers, server)
end

function calls.connect(number)
    if not on_connect then return 0 end
    return start(number, on_connect, host.abi == 1 and connection(number) or host.id(number))
end

function calls.close(number, problem)
    waiting[number] = nil
    if not on_close then return 0 end
    if host.abi == 1 then
        return start(number, on_close, problem, connection(number))
    end
    return start(number, on_close, host.id(number), problem)
end

function calls.resume(number, wake)
    local thread = waiting[number]
    if not thread then return 0 end
    waiting[number] = nil
    return step(number, thread, wake)
end

-- What has a result does not wait: it runs outside of any coroutine.
local function direct(number, call, ...)
    local before, before_active = current, active
    current, active = number, nil
    local ok, result = pcall(call, ...)
    current, active = before, before_active
    return ok, result
end

function calls.input(number)
    local ok, length = direct(number, protocol_input, setmetatable({ number, 0 }, Buffer), connection(number))
    if not ok then
        return nil, tostring(length)
    end
    if type(length) ~= "number" or length ~= length or length % 1 ~= 0 or length < -1 then
        return nil, "protocol_input returned no length: " .. tostring(length)
    end
    return length
end

function calls.packet(number, bytes)
    local ok, data = direct(number, protocol_decode, bytes, connection(number))
    if not ok then
        return 2, tostring(data)
    end
    if data == nil then
        return 0
    end
    if host.abi == 1 then
        return start(number, on_message, data, connection(number))
    end
    return start(number, on_message, data)
end

function calls.encode(number, data)
    if not protocol_encode then return data end
    local ok, bytes = direct(number, protocol_encode, data, connection(number))
    if not ok then
        return nil, tostring(bytes)
    end
    if type(bytes) ~= "string" then
        return nil, "protocol_encode returned no string but a " .. type(bytes)
    end
    return bytes
end

-- Looked at after loading: the names of what is there.
function calls.callbacks()
    local names = {}
    for _, name in ipairs({ "on_handshake", "on_connect", "on_message", "on_close", "protocol_input", "protocol_decode",
        "protocol_encode" }) do
        if type(globals[name]) == "function" then
            names[#names + 1] = name
        end
    end
    return names
end

function calls.init()
    if type(init) == "function" then return start(0, init) end
    return 0
end

function calls.spin()
    while true do end
end

return calls
