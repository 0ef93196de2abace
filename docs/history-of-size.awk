# Writes a history of about so many events that keeps every promise, to measure the checker with:
#
#     awk -v events=10000000 -f docs/history-of-size.awk > /tmp/history.jsonl
#     /usr/bin/time -v skein check --strict /tmp/history.jsonl

function put(process, type, f, queue, rest) {
  time += 100
  printf "{\"index\":%d,\"time\":%.0f,\"process\":\"%s\",\"type\":\"%s\",\"f\":\"%s\",\"queue\":\"%s\"%s}\n",
    written++, time, process, type, f, queue, rest
}

function both(process, f, queue, rest) {
  put(process, "invoke", f, queue, rest)
  put(process, "ok", f, queue, rest)
}

function deliver(queue, attempt, id) {
  token++
  holder = "c" token % 11
  put(holder, "ok", "deliver", queue, value ",\"token\":" token ",\"attempt\":" attempt \
    ",\"lease\":30000000000,\"granted\":" sprintf("%.0f", time + 77) ",\"id\":\"" id "\"")
}

function settle(f, queue) { both(holder, f, queue, value ",\"token\":" token) }

BEGIN {
  config = ",\"config\":{\"deadLetter\":\"dead\",\"maxDeliveries\":5,\"lease\":30000000000}"
  for (number = 0; number < 2; number++) {
    put("admin", "invoke", "declare", "work-" number, "")
    put("admin", "ok", "declare", "work-" number, config)
  }
  while (written < events - 20) {
    message++
    queue = "work-" message % 2
    value = ",\"value\":\"p" message % 7 "-" message "\""
    put("p" message % 7, "invoke", "publish", queue, value)
    put("p" message % 7, "ok", "publish", queue, value ",\"id\":\"" message "\"")
    if (message % 500 == 0) { both("admin", "cancel", queue, value); continue }
    deliver(queue, 1, message)
    if (message % 10 == 0) { settle("nack", queue); deliver(queue, 2, message) }
    if (message % 50 != 7) { settle("ack", queue); continue }
    settle("reject", queue)
    if (message % 100 == 7) {
      both("admin", "redrive", "dead", "")
      deliver(queue, 1, "again-" message)
      settle("ack", queue)
    } else {
      deliver("dead", 1, "dead-" message)
      settle("ack", "dead")
    }
    if (message % 10000 == 57) both("admin", "purge", queue, "")
  }
  both("admin", "drain", "work-0", "")
  both("admin", "drain", "work-1", "")
  both("admin", "drain", "dead", "")
}
