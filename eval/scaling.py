#!/usr/bin/env python3
"""What a run gains from more machines, calculated from measured times: efficiency against nodes, where one run stops
to pay, and when many runs side by side are the better use of the nodes.

    python3 eval/scaling.py measure --train target/release/dcgan-train --exchange target/release/examples/exchange \\
        --out times.json                 # on one node: training steps by batch size, exchanges of two processes
    python3 eval/scaling.py tables times.json [--batch B] [--faster K]   # for nodes K times as fast as the measured one

A step of P nodes takes

    t(b)                                 the step of one node on its b images (measured, interpolated)
  + c(P)                                 the work of the sum of gradients on the node (measured with two processes)
  + 2 (P-1)/P 4 N / beta + 2 (P-1) alpha the sum of N gradients: an all-to-all and an all-gather, both in P-1 rounds
  + sum over the exchanges of batch norm and losses: log2(P) alpha + (P-1)/P V (1 + 2 C) 8 / beta
                                         C channels, V shards (as many as nodes): each process gets all shards' values

with beta the bandwidth of a node's link in each direction and alpha the latency of a message. Nothing overlaps, as in
the program. Waiting for a slower node is left out: it adds to every step what the slowest node takes longer.
"""

import argparse
import json
import math
import subprocess
import sys

NETWORKS = {"1 Gb/s": (125e6, 50e-6), "10 Gb/s": (1.25e9, 20e-6), "100 Gb/s": (12.5e9, 3e-6)}
BATCHES = (128, 64, 32, 16, 8)


def exchanges(preset):
    """Channels of every exchange of batch norm in a step with `order = both`, and one of width 1 for each loss.

    D sees real and generated images and is differentiated for both, then G is updated through D.
    """
    d, g = {
        "pytorch64": ([128, 256, 512], [512, 256, 128, 64]),
        "pytorch32": ([128, 256], [256, 128, 64]),
    }[preset]
    forward = 3 * d + g
    # Backward passes gather two sums, one after the other: half the values of a forward pass each.
    backward = [channels / 2 for channels in 3 * d + g for _ in range(2)]
    return forward + backward + [1] * 3


def interpolate(times, batch):
    """Seconds of a step of `batch` images; beyond the measured sizes in proportion."""
    known = sorted((int(size), seconds) for size, seconds in times.items())
    if batch <= known[0][0]:
        # A smaller batch is not faster than the slope of the two smallest says.
        (b0, t0), (b1, t1) = known[0], known[1]
        return max(t0 + (batch - b0) * (t1 - t0) / (b1 - b0), 0.2 * t0)
    for (b0, t0), (b1, t1) in zip(known, known[1:]):
        if batch <= b1:
            return t0 + (batch - b0) * (t1 - t0) / (b1 - b0)
    b, t = known[-1]
    return t * batch / b


def step(times, nodes, batch, network):
    """Seconds of a step of `batch` images on `nodes` nodes."""
    compute = interpolate(times["step_s"], batch / nodes)
    if nodes == 1:
        return compute
    beta, alpha = network
    share = (nodes - 1) / nodes
    bytes_of_gradients = 4 * times["parameters"]
    gradients = (
        times["exchange"]["all_reduce_ms"] / 1e3 + 2 * share * bytes_of_gradients / beta + 2 * (nodes - 1) * alpha
    )
    norm = sum(
        math.log2(nodes) * alpha + share * nodes * (1 + 2 * channels) * 8 / beta
        for channels in exchanges(times["preset"])
    )
    return compute + gradients + norm


def table(rows, head):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def tables(times, batch):
    nodes = [2**i for i in range(11)]
    print(f"`{times['preset']}` in {times['dtype']}, one node: {times['machine']}\n")
    print(f"**A minibatch of {batch} for each node**: efficiency, images/s of all nodes against as many single nodes\n")
    weak = lambda n, network: step(times, 1, batch, network) / step(times, n, batch * n, network)
    table(
        [[str(n)] + [f"{100 * weak(n, network):.0f} %" for network in NETWORKS.values()] for n in nodes[1:]],
        ["nodes"] + list(NETWORKS),
    )
    print(f"**A minibatch of {batch} in all**: how many times faster than one node\n")
    strong = lambda n, network: step(times, 1, batch, network) / step(times, n, batch, network)
    small = [n for n in nodes if n <= batch // 2]
    table(
        [[str(n)] + [f"{strong(n, network):.2f}" for network in NETWORKS.values()] for n in small[1:]],
        ["nodes"] + list(NETWORKS),
    )
    print(
        "**Where adding nodes stops paying off**: the last doubling of nodes that makes it at least 1.25 times faster\n"
    )

    def last(speed, candidates):
        found = 1
        for n in candidates[1:]:
            if speed(n) < 1.25 * speed(n // 2):
                break
            found = n
        return str(found)

    table(
        [
            [f"{batch} in all"] + [last(lambda n: strong(n, network), small) for network in NETWORKS.values()],
            [f"{batch} for each node"] + [last(lambda n: n * weak(n, network), nodes) for network in NETWORKS.values()],
        ],
        ["minibatch"] + list(NETWORKS),
    )
    total = 64
    print(
        f"**Many runs on {total} nodes** (seeds, settings): nodes for each run that end all of them first, and how much"
    )
    print(f"faster that is than one run after the other on all nodes; minibatches of {batch} in all\n")
    rows = []
    for runs in (1, 4, 16, 64, 256):
        row = [str(runs)]
        for network in NETWORKS.values():
            end = lambda n: math.ceil(runs / (total // n)) * step(times, n, batch, network)
            best = min((n for n in small if n <= total), key=end)
            row.append(f"{best} ({runs * step(times, total, batch, network) / end(best):.1f}x)")
        rows.append(row)
    table(rows, ["runs"] + list(NETWORKS))


def measure(args):
    def run(command):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            sys.exit(f"{' '.join(command)}: {result.stderr}")
        return json.loads([line for line in result.stdout.splitlines() if line.startswith("{")][-1])

    times = {"preset": args.preset, "dtype": args.dtype, "step_s": {}}
    for batch in BATCHES:
        command = [args.train, "bench", "--preset", args.preset, "--dtype", args.dtype, "--device", "cpu", "--json"]
        found = run(command + ["--batch-size", str(batch), "--steps", str(max(7, 512 // batch))])
        times["step_s"][batch] = found["step_ms_median"] / 1e3
        times["machine"] = f"{found['threads']} threads, {args.machine}"
        print(f"{batch} images: {found['step_ms_median']:.0f} ms", file=sys.stderr)
    times["parameters"] = {"pytorch64": 6_342_272, "pytorch32": 1_732_224}[args.preset]
    launcher = args.launcher.split()
    times["exchange"] = run(launcher + ["-n", "2", args.exchange, str(times["parameters"])])
    with open(args.out, "w", encoding="utf-8") as file:
        json.dump(times, file, indent=1)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="time steps and exchanges on this machine")
    measuring.add_argument("--train", required=True, help="dcgan-train")
    measuring.add_argument("--exchange", required=True, help="the example `exchange` of dcgan-mpi")
    measuring.add_argument("--launcher", default="mpirun --bind-to none", help="starts MPI processes")
    measuring.add_argument("--preset", default="pytorch64", choices=["pytorch64", "pytorch32"])
    measuring.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    measuring.add_argument("--machine", default="", help="its processor")
    measuring.add_argument("--out", required=True)
    calculating = commands.add_parser("tables", help="calculate the tables from measured times")
    calculating.add_argument("times", help="the file of `measure`")
    calculating.add_argument("--batch", type=int, default=128, help="images of a minibatch")
    calculating.add_argument(
        "--faster", type=float, default=1, help="how much faster a node computes than the one measured"
    )
    args = parser.parse_args()
    if args.command == "measure":
        measure(args)
    else:
        with open(args.times, encoding="utf-8") as file:
            times = json.load(file)
        times["step_s"] = {batch: seconds / args.faster for batch, seconds in times["step_s"].items()}
        times["machine"] += f", {args.faster:g} times as fast" if args.faster != 1 else ""
        tables(times, args.batch)


if __name__ == "__main__":
    main()
