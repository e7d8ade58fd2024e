"""A foreign consumer: reads a queue with pika and checks what came.

usage: reader.py AMQP_URL QUEUE COUNT
Prints one line of JSON: distinct ids, repeats, and keys out of order once
repeats are dropped. Ends when COUNT distinct ids came, or after a minute of silence.
"""
import json
import sys
import time

import pika

url, queue, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen, last, disorder, repeats = set(), {}, 0, 0
quiet = time.monotonic()
while len(seen) < count and time.monotonic() - quiet < 60:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        channel.basic_qos(prefetch_count=200)
        for method, properties, body in channel.consume(queue, inactivity_timeout=1):
            if method is None:
                if len(seen) >= count or time.monotonic() - quiet > 60:
                    break
                continue
            quiet = time.monotonic()
            assert properties.headers["ce-specversion"] == "1.0"
            assert properties.delivery_mode == 2 and properties.content_type == "application/json"
            message = json.loads(body)
            mid = properties.headers["ce-id"]
            if mid in seen:
                repeats += 1
            else:
                seen.add(mid)
                if message["n"] <= last.get(message["key"], 0):
                    disorder += 1
                last[message["key"]] = message["n"]
            channel.basic_ack(method.delivery_tag)
            if len(seen) >= count:
                break
        connection.close()
    except (pika.exceptions.AMQPError, OSError):
        time.sleep(0.2)
print(json.dumps({"distinct": len(seen), "repeats": repeats, "disorder": disorder}))
