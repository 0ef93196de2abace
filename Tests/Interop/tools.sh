#!/usr/bin/env bash
# amqp-publish, amqp-get, amqp-consume and amqp-delete-queue of librabbitmq: tools.sh PORT.
set -euo pipefail
url="amqp://guest:guest@127.0.0.1:$1"
queue="tools-$RANDOM"
amqp-declare-queue -u "$url" -d -q "$queue" >/dev/null
amqp-publish -u "$url" -r "$queue" -p -b hello
[[ $(amqp-get -u "$url" -q "$queue") == hello ]]
code=0
amqp-get -u "$url" -q "$queue" || code=$?
[[ $code == 2 ]]
for number in 1 2 3; do amqp-publish -u "$url" -r "$queue" -p -b "$number"; done
[[ $(amqp-consume -u "$url" -q "$queue" -c 3 -p 1 cat) == 123 ]]
# A queue that the broker names, bound to an exchange; what is published before it is bound is nobody's.
out=$(mktemp)
amqp-consume -u "$url" -e amq.direct -r "$queue-key" -c 1 cat >"$out" &
consumer=$!
trap 'kill "$consumer" 2>/dev/null || true; rm -f "$out"' EXIT
for ((attempt = 0; attempt < 600; attempt++)); do
  if ! kill -0 "$consumer" 2>/dev/null; then break; fi
  amqp-publish -u "$url" -e amq.direct -r "$queue-key" -b bound
  sleep 0.2
done
[[ $(cat "$out") == bound ]]
[[ $(amqp-delete-queue -u "$url" -q "$queue") == 0 ]]
echo "ok      amqp-tools"
