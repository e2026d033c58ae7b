-- One atomic step over all windows of a request: the arithmetic of counters.rs, in numbers that doubles hold exactly.
-- KEYS: the reservation, then the scopes. ARGV: reserve, settle or look, and numbers in the order in which they are
-- read.
local MAX, SCALE = 9007199254740991, 60000
-- The largest tokens, day's tokens and cost of one request.
local MOST = {4000000000, 4000000000, 1000000000000000}
local op, at = ARGV[1], 1
local function number()
  at = at + 1
  return tonumber(ARGV[at])
end
local function text(n) return string.format('%.0f', n) end
local function add(a, b)
  local sum = a + b
  if sum > MAX then return MAX end
  return sum
end
local function sub(a, b)
  if b > a then return 0 end
  return a - b
end

-- The time is Redis's own, so that Envoys whose clocks differ agree; a test gives another. Days and months are told by
-- the Envoy, which knows the time zone: number, begin and end of those that its own clock is in. Where that clock is
-- before or past a midnight and Redis's is not, Redis's counts. A clock that is more than a day off cannot be believed
-- at all.
local now = number()
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local function period()
  local n, begins, ends = number(), number(), number()
  if now < begins - 90000000 or now >= ends + 90000000 then return nil end
  if now < begins then return n - 1, begins end
  if now >= ends then return n + 1, ends + ends - begins end
  return n, ends
end
local day, day_ends = period()
local month, month_ends = period()
if not day or not month then
  return redis.error_reply('CLOCK the clocks of Redis and of this Envoy are more than a day apart')
end
local lease_ms, keep_s, shadow, most_users = number(), number(), number(), number()

-- A scope: limits (negative for none), in the order of `Window::ALL`, and what is used and reserved of them, brought up
-- to now.
local FIELDS = {'at', 'r', 't', 'd', 'dt', 'dc', 'm', 'mc'}
local scopes = {}
for i = 1, number() do
  local s = {key = KEYS[i + 1], kind = number(), rpm = number(), rcap = number(), tpm = number(), tcap = number(),
    tpd = number(), bpd = number(), bpm = number(), conc = number(), share = {}, alerts = {}}
  for w = 1, 3 do s.share[w] = number() end
  s.shares = {}
  local shares = number()
  for n = 1, shares do s.shares[n] = number() end
  for w = 1, 3 do
    s.alerts[w] = {}
    for n = 1, shares do s.alerts[w][n] = number() end
  end
  local kept = redis.call('HMGET', s.key, 'at', 'r', 't', 'd', 'dt', 'dc', 'm', 'mc', 'rep', 'told', 'l',
    'rr', 'tr')
  for f = 1, 8 do s[FIELDS[f]] = tonumber(kept[f] or '0') end
  s.rep, s.told, s.leases = {}, {}, {}
  local f = string.gmatch((kept[9] or '0,0,0') .. ',' .. (kept[10] or '0,0,0'), '%d+')
  for w = 1, 3 do s.rep[w] = tonumber(f()) end
  for w = 1, 3 do s.told[w] = tonumber(f()) end
  local elapsed = 0
  if s.at > 0 then elapsed = sub(now, s.at) end
  if now > s.at then s.at = now end
  -- A minute drains by the limits under which a request was let through last, not by those of one that ends.
  s.rr, s.tr = tonumber(kept[12] or '-1'), tonumber(kept[13] or '-1')
  if s.rpm >= 0 and (op == 'reserve' or s.rr < 0) then s.rr = s.rpm end
  if s.tpm >= 0 and (op == 'reserve' or s.tr < 0) then s.tr = s.tpm end
  if s.rr < 0 then s.r = 0 else s.r = sub(s.r, s.rr * elapsed) end
  if s.tr < 0 then s.t = 0 else s.t = sub(s.t, s.tr * elapsed) end
  if day > s.d then s.d, s.dt, s.dc, s.rep[1], s.rep[2], s.told[1], s.told[2] = day, 0, 0, 0, 0, 0, 0 end
  if month > s.m then s.m, s.mc, s.rep[3], s.told[3] = month, 0, 0, 0 end
  local second = math.floor(s.at / 1000)
  for e, n, t, d, c in string.gmatch(kept[11] or '', '(%d+),(%d+),(%d+),(%d+),(%d+)') do
    if tonumber(e) > second then
      s.leases[#s.leases + 1] = {tonumber(e), tonumber(n), tonumber(t), tonumber(d), tonumber(c)}
    end
  end
  scopes[i] = s
end

local function held(s)
  local n, t, d, c = 0, 0, 0, 0
  for _, l in ipairs(s.leases) do n, t, d, c = n + l[2], add(t, l[3]), add(d, l[4]), add(c, l[5]) end
  return n, t, d, c
end

local function full(s, w)
  local n, t, d, c = held(s)
  return (s.rpm >= 0 and s.r + SCALE > s.rcap)
    or (s.tpm >= 0 and w[1] > 0 and s.t + t * SCALE + w[1] * SCALE > s.tcap)
    or (s.tpd >= 0 and w[2] > 0 and s.dt + d + w[2] > s.tpd)
    or (s.bpd >= 0 and w[3] > 0 and s.dc + c + w[3] > s.bpd)
    or (s.bpm >= 0 and w[3] > 0 and s.mc + c + w[3] > s.bpm)
    or (s.conc >= 0 and lease_ms >= 0 and n >= s.conc)
end

local function reached(s)
  local _, _, d, c = held(s)
  return (s.share[1] >= 0 and s.dt + d >= s.share[1]) or (s.share[2] >= 0 and s.dc + c >= s.share[2])
    or (s.share[3] >= 0 and s.mc + c >= s.share[3])
end

local function reserve(s, w)
  if s.rpm >= 0 then s.r = add(s.r, SCALE) end
  if lease_ms < 0 then return 0 end
  local step = math.max(math.floor(lease_ms / 8000), 60)
  local expires = math.ceil(math.ceil((s.at + lease_ms) / 1000) / step) * step
  local lease
  for _, l in ipairs(s.leases) do if l[1] == expires then lease = l end end
  if not lease then
    lease = {expires, 0, 0, 0, 0}
    s.leases[#s.leases + 1] = lease
  end
  lease[2], lease[3], lease[4], lease[5] = lease[2] + 1, add(lease[3], w[1]), add(lease[4], w[2]), add(lease[5], w[3])
  return expires
end

local function settle(s, h, used)
  local left = {}
  for _, l in ipairs(s.leases) do
    if h and l[1] == h[1] then
      l[2], l[3], l[4], l[5] = sub(l[2], 1), sub(l[3], h[2]), sub(l[4], h[3]), sub(l[5], h[4])
    end
    if l[2] > 0 then left[#left + 1] = l end
  end
  s.leases = left
  if s.tpm >= 0 then s.t = add(s.t, used[1] * SCALE) end
  if s.tpd >= 0 then s.dt = add(s.dt, used[2]) end
  if s.bpd >= 0 then s.dc = add(s.dc, used[3]) end
  if s.bpm >= 0 then s.mc = add(s.mc, used[3]) end
end

-- The highest share of each window that is used, if it is higher than before; what crossed is read off by the caller,
-- who is told the shares as they were.
local function mark(s, before)
  local used, new = {s.dt, s.dc, s.mc}, {}
  for w = 1, 3 do
    new[w] = before[w]
    for n, threshold in ipairs(s.alerts[w]) do
      if threshold >= 0 and used[w] >= threshold and s.shares[n] > new[w] then new[w] = s.shares[n] end
    end
  end
  return new
end

-- For how many seconds the scope is kept: as long as anything of it counts. A day or a month is kept for an hour more,
-- because the clock may be set back.
local function lifetime(s)
  local ttl, second = 120, math.floor(s.at / 1000)
  if s.tpd >= 0 or s.bpd >= 0 then ttl = math.ceil((day_ends - now) / 1000) + 3600 end
  if s.bpm >= 0 then ttl = math.ceil((month_ends - now) / 1000) + 3600 end
  for _, l in ipairs(s.leases) do ttl = math.max(ttl, l[1] - second + 60) end
  if s.rr > 0 then ttl = math.max(ttl, math.ceil(s.r / s.rr / 1000) + 60) end
  if s.tr > 0 then ttl = math.max(ttl, math.ceil(s.t / s.tr / 1000) + 60) end
  return ttl
end

-- The users of a tenant that have a key, by how much of their windows they use, and by when their keys expire. Those
-- with running requests come last.
local RUNNING, by_use, by_expiry = 2, KEYS[#KEYS - 1], KEYS[#KEYS]
local function rank(s)
  local n, t, d, c = held(s)
  local share = 0
  local function part(taken, limit)
    if limit > 0 then share = math.max(share, math.min(taken / limit, 1)) end
  end
  part(s.r, s.rcap)
  part(s.t + t * SCALE, s.tcap)
  part(s.dt + d, s.tpd)
  part(s.dc + c, s.bpd)
  part(s.mc + c, s.bpm)
  part(n, s.conc)
  if n > 0 then share = share + RUNNING end
  return string.format('%.6f', share)
end

local function forget(key)
  redis.call('ZREM', by_use, key)
  redis.call('ZREM', by_expiry, key)
end

-- Makes room for the key of a new user; returns how many were evicted. Nobody is refused because others are busy: while
-- all are, there may be four times as many.
local function make_room(s)
  if redis.call('ZSCORE', by_use, s.key) then return 0 end
  local second = text(math.floor(now / 1000))
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', by_expiry, '-inf', second, 'LIMIT', 0, 100)) do forget(key) end
  local count, evicted = redis.call('ZCARD', by_use), 0
  -- Where the policy has lowered the bound, each new user brings the number nearer to it.
  while count >= most_users and evicted < 16 do
    local least = redis.call('ZRANGE', by_use, 0, 0, 'WITHSCORES')
    if tonumber(least[2]) >= RUNNING and count < 4 * most_users then break end
    redis.call('DEL', least[1])
    forget(least[1])
    count, evicted = count - 1, evicted + 1
  end
  return evicted
end

local function save(s, rep, told)
  local leases = {}
  for i, l in ipairs(s.leases) do
    leases[i] = text(l[1]) .. ',' .. text(l[2]) .. ',' .. text(l[3]) .. ',' .. text(l[4]) .. ',' .. text(l[5])
  end
  redis.call('HSET', s.key, 'at', text(s.at), 'r', text(s.r), 't', text(s.t), 'd', text(s.d), 'dt', text(s.dt),
    'dc', text(s.dc), 'm', text(s.m), 'mc', text(s.mc), 'rep', table.concat(rep, ','), 'told', table.concat(told, ','),
    'l', table.concat(leases, ';'), 'rr', text(s.rr), 'tr', text(s.tr))
  local ttl = lifetime(s)
  redis.call('EXPIRE', s.key, text(ttl))
  if s.kind == 1 then
    redis.call('ZADD', by_use, rank(s), s.key)
    redis.call('ZADD', by_expiry, text(math.floor(now / 1000) + ttl), s.key)
    for _, key in ipairs({by_use, by_expiry}) do
      if redis.call('TTL', key) < ttl then redis.call('EXPIRE', key, text(ttl)) end
    end
  end
end

local function answer(first)
  -- Which question this answers: a bridge may hand an answer to somebody else.
  table.insert(first, 1, op .. ' ' .. KEYS[1])
  table.insert(first, 2, text(now))
  for _, s in ipairs(scopes) do
    local n, t, d, c = held(s)
    for _, f in ipairs(FIELDS) do first[#first + 1] = text(s[f]) end
    for w = 1, 3 do first[#first + 1] = text(s.rep[w]) end
    for w = 1, 3 do first[#first + 1] = text(s.told[w]) end
    for _, v in ipairs({n, t, d, c}) do first[#first + 1] = text(v) end
  end
  return first
end

if op == 'look' then return answer({}) end

local kept = redis.call('GET', KEYS[1])
if op == 'settle' then
  if kept == 'done' then return answer({0}) end
  local holds, i = {}, 0
  for e, t, d, c in string.gmatch(kept or '', '(%d+),(%d+),(%d+),(%d+)') do
    i = i + 1
    holds[i] = {tonumber(e), tonumber(t), tonumber(d), tonumber(c)}
  end
  local used, charged = {number(), number(), number()}, {}
  for _ = 1, number() do
    local n = number()
    charged[n] = {number(), number(), number()}
  end
  for n, s in ipairs(scopes) do
    local own = used
    if s.kind == 2 then own = charged[n] or {0, 0, 0} end
    -- A model that was left out holds nothing.
    if s.kind ~= 2 or charged[n] or (holds[n] and holds[n][1] > 0) then
      settle(s, holds[n], own)
      local rep = s.rep
      if s.kind == 0 then rep = mark(s, s.rep) end
      -- A user that was evicted meanwhile, when others have its place, begins anew.
      if s.kind ~= 1 or redis.call('ZSCORE', by_use, s.key) or redis.call('ZCARD', by_use) < most_users then
        save(s, rep, s.told)
      end
    end
  end
  redis.call('SET', KEYS[1], 'done', 'EX', text(keep_s))
  return answer({1})
end

-- reserve: verdict (1 let through), scope and whether it is a share (for a refusal), users that were evicted, models
-- that are full, their number first.
local adds_up, models = number() == 1, {}
for i = 1, number() do models[i] = {number(), number(), number(), number()} end
if kept then return answer({1, 0, 0, 0, 0}) end
local left_out, shadowed = {}, {0, 0}
-- A model's own day counts all that it serves.
local function own(m) return {m[1], m[1], m[3]} end
local function worst(skip)
  local w = {0, 0, 0}
  for i, m in ipairs(models) do
    if not skip[i] then
      for k = 1, 3 do w[k] = adds_up and math.min(w[k] + m[k], MOST[k]) or math.max(w[k], m[k]) end
    end
  end
  return w
end
local evicted = 0
local function verdict(let_through, n, share)
  local out, count = {let_through, n, share, evicted, 0}, 0
  for i = 1, #models do
    if left_out[i] then
      count = count + 1
      out[#out + 1] = i
    end
  end
  out[5] = count
  return answer(out)
end
local function refused(n, share)
  if shadow == 1 then
    if shadowed[1] == 0 then shadowed = {n, share} end
    return nil
  end
  -- Who is refused is told as well what share of a budget is used.
  for _, s in ipairs(scopes) do
    local told = table.concat(s.rep, ',')
    if s.kind == 0 and told ~= table.concat(s.told, ',') then redis.call('HSET', s.key, 'told', told) end
  end
  return verdict(0, n, share)
end
local wants, tenant = {}, 0
local function judged(n)
  local is_full = full(scopes[n], wants[n])
  if is_full or reached(scopes[n]) then return refused(n, is_full and 0 or 1) end
  return nil
end
for n, s in ipairs(scopes) do
  if s.kind == 1 then
    wants[n] = worst({})
    local no = judged(n)
    if no then return no end
  end
  if s.kind == 0 then tenant = n end
end
local first, any_left = 0, false
for i, m in ipairs(models) do
  if m[4] > 0 and full(scopes[m[4]], own(m)) then
    left_out[i] = true
    if first == 0 then first = m[4] end
  else
    any_left = true
  end
end
if first > 0 and (shadow == 1 or not any_left) then
  local no = refused(first, 0)
  if no then return no end
  left_out = {}
end
if tenant > 0 then
  wants[tenant] = worst(left_out)
  local no = judged(tenant)
  if no then return no end
end
for i, m in ipairs(models) do
  if m[4] > 0 and not left_out[i] and not wants[m[4]] then wants[m[4]] = own(m) end
end
local holds = {}
for n, s in ipairs(scopes) do
  if wants[n] then
    local e = reserve(s, wants[n])
    holds[n] = text(e) .. ',' .. text(wants[n][1]) .. ',' .. text(wants[n][2]) .. ',' .. text(wants[n][3])
    if s.kind == 1 then evicted = make_room(s) end
    -- The caller is told what has been reported: what of it is new, it reads off the shares as they were.
    save(s, s.rep, s.kind == 0 and s.rep or s.told)
  else
    holds[n] = '0,0,0,0'
    save(s, s.rep, s.told)
  end
end
redis.call('SET', KEYS[1], table.concat(holds, ';'), 'EX', text(keep_s))
return verdict(1, shadowed[1], shadowed[2])
