#!/usr/bin/env python3
"""Measures and draws the plots of docs/performance.md. Nothing but Python's own library is needed.

    docs/plots/plot.py measure .build/release/skein    # some minutes; writes docs/plots/results.jsonl
    docs/plots/plot.py draw                            # docs/plots/*.svg from it

Each point is the median of three runs; where the machine's limit can be measured it is drawn beside.
"""

import json
import math
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(HERE, "results.jsonl")
REPEATS = 3

# Plot, title, label of the x axis, option, values, further words of the call.
PLOTS = [
    ("body", "Publish, window 1,000", "bytes of a message's body", "--body",
     [100, 300, 1024, 4096, 16384], ["publish"]),
    ("window", "Publish, 1 KiB", "publishes in flight", "--window",
     [1, 10, 100, 1000, 10000], ["publish"]),
    ("queues", "Publish to many queues in turn, 1 KiB, window 1,000", "queues", "--queues",
     [2, 10, 100, 1000], ["many-queues"]),
    ("backlog", "Publish beside a backlog, 100 B, window 1,000", "messages waiting", "--backlog",
     [1000, 10000, 100000, 1000000], ["backlog"]),
]


def messages(option, value, mode):
    """Enough for a second or so."""
    if option == "--window":
        return max(2000, min(300000, value * 1000))
    if option == "--body":
        return max(20000, min(500000, 300 * 1024 * 1024 // max(value, 600)))
    return 100000 if mode == "many-queues" else 200000


def run(words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout)


def measure(skein):
    with open(RESULTS, "w") as out:
        for name, _, _, option, values, words in PLOTS:
            for value in values:
                count = str(messages(option, value, words[0]))
                call = [skein, "bench", *words, option, str(value), "--messages", count, "--json"]
                rates = [run(call)["messagesPerSecond"] for _ in range(REPEATS)]
                write(out, name, "skein", value, rates)
                if name in ("body", "window"):
                    limit = [skein, "bench", "limit", option, str(value), "--messages", count,
                             "--log", "append", "--json"]
                    rates = [run(limit)["messagesPerSecond"] for _ in range(REPEATS)]
                    write(out, name, "bare pipe, append", value, rates)


def write(out, plot, series, value, rates):
    line = {"plot": plot, "series": series, "x": value, "messagesPerSecond": rates}
    out.write(json.dumps(line) + "\n")
    out.flush()
    print(f"{plot} {series} {value}: {statistics.median(rates):,.0f}/s", flush=True)


# Drawing: both axes logarithmic.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 80, 20, 40, 50
COLOURS = {"skein": "#1f6feb", "bare pipe, append": "#8b949e"}


def draw():
    with open(RESULTS) as lines:
        points = [json.loads(line) for line in lines]
    for name, title, label, *_ in PLOTS:
        own = [point for point in points if point["plot"] == name]
        if own:
            with open(os.path.join(HERE, f"{name}.svg"), "w") as out:
                out.write(svg(title, label, own))


def svg(title, label, points):
    xs = [point["x"] for point in points]
    ys = [statistics.median(point["messagesPerSecond"]) for point in points]
    x_low, x_high = math.log10(min(xs)), math.log10(max(xs))
    y_low, y_high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))

    def across(x):
        return LEFT + (math.log10(x) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def down(y):
        return TOP + (y_high - math.log10(y)) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{title}, messages per second</text>',
        f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 10}" text-anchor="middle">{label}</text>',
    ]
    for power in range(y_low, y_high + 1):
        y = down(10 ** power)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10 ** power:,}</text>')
    for x in sorted(set(xs)):
        parts.append(
            f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:,}</text>')
    for place, series in enumerate(sorted({point["series"] for point in points}, reverse=True)):
        colour = COLOURS.get(series, "#1f6feb")
        line = sorted(
            (point["x"], statistics.median(point["messagesPerSecond"]))
            for point in points if point["series"] == series)
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y in line:
            parts.append(f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="3" fill="{colour}"/>')
        parts.append(
            f'<text x="{WIDTH - RIGHT}" y="{22 + 16 * place}" text-anchor="end" '
            f'fill="{colour}">{series}</text>')
    return "\n".join(parts + ["</svg>", ""])


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"] and len(sys.argv) == 3:
        measure(os.path.abspath(sys.argv[2]))
    elif sys.argv[1:] == ["draw"]:
        draw()
    else:
        sys.exit(__doc__)
