-- Write a batch of packed values: of each key, the value with the largest position stays.
--
-- All checks come before the first write, so a script that answers anything but OK has changed
-- nothing. Positions are compared as numbers of four bytes: Lua compares strings by the server's
-- locale, which is not the order of bytes. Without `replicate_commands`, Redis 6 would log the
-- script and its whole input, and not just what landed.
--
-- KEYS: generation, forgotten, markers ("" for a layout that has none)
-- ARGV: 1 prefix  2 ids, 8 bytes each  3 values, one after the other  4 bytes of a value
--       5 magic and version  6 first byte of the position (1-based)  7 its struct format
--       8 states that allow this write, comma-separated  9 bundle  10 snapshot that a loading generation must be of, "" for any
--       then field, expected, new marker…
redis.replicate_commands()
local prefix, ids, values = ARGV[1], ARGV[2], ARGV[3]
local width, magic, first, format = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), ARGV[7]
local count = #ids / 8

-- A marker is an offset, or an offset and a log time: `15@1735689600000`.
local function offset_of(marker) return tonumber(string.match(marker, "^%-?%d+")) end

if KEYS[1] ~= "" then
  local known = redis.call("HMGET", KEYS[1], "state", "bundle", "snapshot")
  if not known[1] then return {"EMPTY"} end
  if not string.find("," .. ARGV[8] .. ",", "," .. known[1] .. ",", 1, true) then
    return {"STATE", known[1]}
  end
  if count > 0 and known[2] ~= ARGV[9] then return {"BUNDLE", known[2]} end
  if ARGV[10] ~= "" and known[1] == "loading" and known[3] ~= ARGV[10] then
    return {"SNAPSHOT", known[3]}
  end
end
for at = 11, #ARGV, 3 do
  local stored = redis.call("HGET", KEYS[3], ARGV[at]) or "-1"
  if offset_of(stored) < tonumber(ARGV[at + 1]) then
    return {"BEHIND", ARGV[at], string.match(stored, "^%-?%d+")}
  end
end

local forgotten = {}
if KEYS[2] ~= "" and count > 0 and redis.call("EXISTS", KEYS[2]) == 1 then
  local names = {}
  for i = 1, count do names[i] = string.sub(ids, 8 * i - 7, 8 * i) end
  forgotten = redis.call("SMISMEMBER", KEYS[2], unpack(names))
end

-- Position of a value: two or three numbers, and after three the partition.
local three = struct.size(format) == 16
local function position(value)
  local a, b, c, p = struct.unpack(format, value, first)
  if three then return a, b, c, p end
  return a, b, 0, 0
end

-- A key may be in a batch twice: the later one is held against the earlier one.
local head_bytes = first - 1 + struct.size(format)
local fates, lands, heads, fresh = {}, {}, {}, 0
for i = 1, count do
  local key = prefix .. string.sub(ids, 8 * i - 7, 8 * i)
  local value = string.sub(values, (i - 1) * width + 1, i * width)
  if forgotten[i] == 1 then
    fates[i] = "F"
  else
    local head = heads[key]
    if not head then
      head = redis.pcall("GETRANGE", key, 0, head_bytes - 1)
      if type(head) == "table" then return {"FOREIGN", key, "another type"} end
      if head == "" then
        if redis.call("EXISTS", key) == 1 then return {"FOREIGN", key, ""} end
        head = false
        fresh = fresh + 1
      elseif #head < #magic or string.sub(head, 1, #magic) ~= magic or #head < head_bytes then
        return {"FOREIGN", key, string.sub(head, 1, 8)}
      end
    end
    local newer = true
    if head then
      local a, b, c, p = position(value)
      local x, y, z, q = position(head)
      if a == x and p ~= q then return {"MOVED", key, tostring(q), tostring(p)} end
      if a ~= x then newer = a > x elseif b ~= y then newer = b > y else newer = c > z end
    end
    if newer then
      fates[i] = "L"
      lands[#lands + 1] = key
      lands[#lands + 1] = value
      heads[key] = string.sub(value, 1, head_bytes)
    else
      fates[i] = "K"
      heads[key] = head
    end
  end
end

for at = 1, #lands, 2 do redis.call("SET", lands[at], lands[at + 1]) end
if KEYS[1] ~= "" and fresh > 0 then redis.call("HINCRBY", KEYS[1], "rows", fresh) end
for at = 11, #ARGV, 3 do
  local stored = redis.call("HGET", KEYS[3], ARGV[at])
  if ARGV[at + 2] ~= "" and (not stored or offset_of(stored) < offset_of(ARGV[at + 2])) then
    redis.call("HSET", KEYS[3], ARGV[at], ARGV[at + 2])
  end
end
return {"OK", table.concat(fates)}
