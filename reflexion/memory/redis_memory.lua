-- Every change of the episodic memory in Redis. One key, the prefix; all keys below it share its slot.
--
--   lessons, uses, wins     hashes: lesson key -> JSON body, trials that saw it, those that passed
--   age, used, useful       sorted sets of lesson keys, by what each eviction policy looks at
--   sizes                   sorted set: problem -> number of its lessons
--   problem:P               sorted set of the lesson keys of a problem, in the order of adding
--   words, frequencies      hashes: problem -> its words; word -> number of problems that have it
--   word:W                  sorted set of the newest problems that have a word
--   credit:K                set of the trials counted for a lesson
--   counts                  hash: bytes, evicted, expired, serial

local prefix = KEYS[1]
local action = ARGV[1]
local per_problem, max_entries, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local max_age = tonumber(ARGV[5])
local ranking = ({ oldest = "age", least_used = "used", least_useful = "useful" })[ARGV[6]]

local function at(name) return prefix .. name end

-- Within one rank the older lesson goes first: ranks are spread wider than any Unix time.
local SPREAD = 1e10

local function set_ranks(key, created, uses, wins)
  redis.call("ZADD", at("age"), created, key)
  redis.call("ZADD", at("used"), string.format("%.17g", uses * SPREAD + created), key)
  local share = math.floor((wins + 1) / (uses + 2) * 1e5)
  redis.call("ZADD", at("useful"), string.format("%.17g", share * SPREAD + created), key)
end

-- What nobody adds to for a whole age holds nothing but expired lessons: Redis then drops it by itself.
local function touch(name)
  if max_age > 0 then
    redis.call("EXPIRE", at(name), math.ceil(max_age) + 1)
  else
    redis.call("PERSIST", at(name))
  end
end

local function drop_problem(problem)
  for word in string.gmatch(redis.call("HGET", at("words"), problem) or "", "%S+") do
    redis.call("ZREM", at("word:" .. word), problem)
    if redis.call("HINCRBY", at("frequencies"), word, -1) <= 0 then
      redis.call("HDEL", at("frequencies"), word)
      redis.call("DEL", at("word:" .. word))
    end
  end
  redis.call("HDEL", at("words"), problem)
  redis.call("ZREM", at("sizes"), problem)
  redis.call("DEL", at("problem:" .. problem))
end

local function drop(key, counted_as)
  local body = redis.call("HGET", at("lessons"), key)
  for _, name in ipairs({ "age", "used", "useful" }) do redis.call("ZREM", at(name), key) end
  if not body then return end
  for _, name in ipairs({ "lessons", "uses", "wins" }) do redis.call("HDEL", at(name), key) end
  redis.call("DEL", at("credit:" .. key))
  local problem = cjson.decode(body).problem
  redis.call("ZREM", at("problem:" .. problem), key)
  if tonumber(redis.call("ZINCRBY", at("sizes"), -1, problem)) <= 0 then drop_problem(problem) end
  redis.call("HINCRBY", at("counts"), "bytes", -#body)
  if counted_as then redis.call("HINCRBY", at("counts"), counted_as, 1) end
end

local function trim_problem(problem, budget, spare)
  local gone = 0
  while gone < budget and redis.call("ZCARD", at("problem:" .. problem)) > per_problem do
    local victim, lowest
    for _, key in ipairs(redis.call("ZRANGE", at("problem:" .. problem), 0, -1)) do
      local rank = tonumber(redis.call("ZSCORE", at(ranking), key) or "-inf")
      if key ~= spare and (not lowest or rank < lowest) then victim, lowest = key, rank end
    end
    if not victim then break end
    drop(victim, "evicted")
    gone = gone + 1
  end
  return gone
end

local function trim_total(budget, spare)
  local gone = 0
  while gone < budget do
    local surplus = redis.call("ZCARD", at("age")) > max_entries
      or tonumber(redis.call("HGET", at("counts"), "bytes") or "0") > max_bytes
    if not surplus then break end
    local lowest = redis.call("ZRANGE", at(ranking), 0, 1)
    local victim = lowest[1] == spare and lowest[2] or lowest[1]
    if not victim or victim == spare then break end
    drop(victim, "evicted")
    gone = gone + 1
  end
  return gone
end

local function clean(budget, now, spare)
  local gone = 0
  if max_age > 0 then
    local limit = string.format("%.17g", now - max_age)
    for _, key in ipairs(redis.call("ZRANGEBYSCORE", at("age"), "-inf", limit, "LIMIT", 0, budget)) do
      if key ~= spare then
        drop(key, "expired")
        gone = gone + 1
      end
    end
  end
  for _, problem in ipairs(redis.call("ZREVRANGEBYSCORE", at("sizes"), "+inf", "(" .. per_problem, "LIMIT", 0, budget)) do
    gone = gone + trim_problem(problem, budget - gone, spare)
  end
  return gone + trim_total(budget - gone, spare)
end

local function index_words(problem, words, serial, newest)
  if redis.call("HEXISTS", at("words"), problem) == 0 then
    if words ~= "" then
      redis.call("HSET", at("words"), problem, words)
      for word in string.gmatch(words, "%S+") do
        redis.call("HINCRBY", at("frequencies"), word, 1)
        redis.call("ZADD", at("word:" .. word), serial, problem)
        redis.call("ZREMRANGEBYRANK", at("word:" .. word), 0, -newest - 1)
      end
    end
  end
  if max_age > 0 then
    for word in string.gmatch(words, "%S+") do touch("word:" .. word) end
  end
end

if action == "add" then
  local now, key, problem, created = tonumber(ARGV[7]), ARGV[8], ARGV[9], tonumber(ARGV[10])
  local uses, wins, words, body = tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13], ARGV[14]
  local newest, every, budget = tonumber(ARGV[15]), tonumber(ARGV[16]), tonumber(ARGV[17])
  if redis.call("HSETNX", at("lessons"), key, body) == 0 then return 0 end
  local serial = redis.call("HINCRBY", at("counts"), "serial", 1)
  redis.call("HSET", at("uses"), key, uses)
  redis.call("HSET", at("wins"), key, wins)
  set_ranks(key, created, uses, wins)
  redis.call("ZADD", at("problem:" .. problem), serial, key)
  redis.call("ZINCRBY", at("sizes"), 1, problem)
  redis.call("HINCRBY", at("counts"), "bytes", #body)
  index_words(problem, words, serial, newest)
  if serial % every == 0 then clean(budget, now, key) end
  trim_problem(problem, budget, key)
  trim_total(budget, key)
  for _, name in ipairs({ "lessons", "uses", "wins", "age", "used", "useful", "sizes", "words", "frequencies", "counts" }) do
    touch(name)
  end
  touch("problem:" .. problem)
  return 1
end

if action == "credit" then
  for i = 9, #ARGV do
    local key = ARGV[i]
    local body = redis.call("HGET", at("lessons"), key)
    if body and redis.call("SADD", at("credit:" .. key), ARGV[7]) == 1 then
      touch("credit:" .. key)
      local uses = redis.call("HINCRBY", at("uses"), key, 1)
      local wins = redis.call("HINCRBY", at("wins"), key, tonumber(ARGV[8]))
      set_ranks(key, tonumber(redis.call("ZSCORE", at("age"), key)), uses, wins)
    end
  end
  return 1
end

if action == "candidates" then
  local hits, order = {}, {}
  for i = 9, #ARGV do
    for _, problem in ipairs(redis.call("ZREVRANGE", at("word:" .. ARGV[i]), 0, tonumber(ARGV[7]) - 1)) do
      if not hits[problem] then
        hits[problem] = 0
        order[#order + 1] = problem
      end
      hits[problem] = hits[problem] + 1
    end
  end
  local place = {}
  for i, problem in ipairs(order) do place[problem] = i end
  table.sort(order, function(a, b)
    if hits[a] ~= hits[b] then return hits[a] > hits[b] end
    return place[a] < place[b]
  end)
  local found = {}
  for i = 1, math.min(#order, tonumber(ARGV[8])) do
    found[#found + 1] = order[i]
    found[#found + 1] = redis.call("HGET", at("words"), order[i]) or ""
  end
  return found
end

if action == "cleanup" then return clean(tonumber(ARGV[8]), tonumber(ARGV[7]), false) end

if action == "clear" then
  local keys = redis.call("ZRANGE", at("age"), 0, tonumber(ARGV[7]) - 1)
  for _, key in ipairs(keys) do drop(key) end
  return #keys
end

return redis.error_reply("unknown action " .. action)
