-- Append events to sequences: of each user, those behind the position of the stored ring.
--
-- A ring keeps its place when it grows, so an event is a SETRANGE of its own bytes and of the
-- header's; the 17 KB around them are neither read nor sent. All checks come before the first
-- write. Numbers of eight bytes are compared as two of four: Lua compares strings by the server's
-- locale, and its numbers have 53 bits.
--
-- KEYS: forgotten
-- ARGV: 1 prefix  2 ids, 8 bytes each  3 events of each user, 4 bytes each  4 events, one after the
--       other  5 their positions, 16 bytes each  6 bytes of an event  7 capacity of a ring
--       8 magic and version of a value  9 magic, version and capacity of a ring
redis.replicate_commands()
local prefix, ids, counts, events, positions = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local width, capacity, outer, inner = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9]
local count, head_bytes = #ids / 8, 44
local inner_first = 13  -- 1-based; behind the header of a vector
local whole = head_bytes + capacity * width

local forgotten = {}
if count > 0 and redis.call("EXISTS", KEYS[1]) == 1 then
  local names = {}
  for i = 1, count do names[i] = string.sub(ids, 8 * i - 7, 8 * i) end
  forgotten = redis.call("SMISMEMBER", KEYS[1], unpack(names))
end

local keys, heads = {}, {}
for i = 1, count do
  local key = prefix .. string.sub(ids, 8 * i - 7, 8 * i)
  local head = redis.pcall("GETRANGE", key, 0, head_bytes - 1)
  if type(head) == "table" then return {"FOREIGN", key, "another type"} end
  if head ~= "" and (string.sub(head, 1, 4) ~= outer
      or string.sub(head, inner_first, inner_first + 7) ~= inner) then
    return {"FOREIGN", key, string.sub(head, 1, 20)}
  end
  keys[i], heads[i] = key, head
end

local last = 0
for i = 1, count do
  local first = last + 1
  last = last + struct.unpack("<I4", counts, 4 * i - 3)
  local key, head, appended = keys[i], heads[i], 0
  if head ~= "" then
    local low, high = struct.unpack("<I4I4", head, inner_first + 8)
    appended = high * 4294967296 + low
    local a, b, c = struct.unpack(">I4I4I4", head, inner_first + 16)
    while first <= last do
      local x, y, z = struct.unpack(">I4I4I4", positions, 16 * first - 15)
      if x > a or (x == a and (y > b or (y == b and z > c))) then break end
      first = first + 1
    end
  end
  if first <= last and forgotten[i] ~= 1 then
    -- The last byte first: Redis then makes room for the ring, and no more.
    if head == "" then redis.call("SETRANGE", key, whole - 1, "\0") end
    local total = appended + last - first + 1
    -- Of more events than fit, the later ones.
    if last - first + 1 > capacity then first = last - capacity + 1 end
    local place = (total - (last - first + 1)) % capacity
    local fit = math.min(last - first + 1, capacity - place)
    redis.call("SETRANGE", key, head_bytes + place * width,
      string.sub(events, (first - 1) * width + 1, (first - 1 + fit) * width))
    if first + fit <= last then
      redis.call("SETRANGE", key, head_bytes,
        string.sub(events, (first - 1 + fit) * width + 1, last * width))
    end
    local seconds = struct.unpack("<I4", events, (last - 1) * width + 13)
    local milliseconds = seconds * 1000
    redis.call("SETRANGE", key, 0, outer
      .. struct.pack(">I4I4", math.floor(milliseconds / 4294967296), milliseconds % 4294967296)
      .. inner .. struct.pack("<I4I4", total % 4294967296, math.floor(total / 4294967296))
      .. string.sub(positions, 16 * last - 15, 16 * last))
  end
end
return {"OK"}
