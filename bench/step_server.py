"""What the comparisons share: step programs that stay warm beside each other and take turns.

Ours (build/bench/workload_step --serve) and PyTorch's (bench/baseline_torch.py) speak the same: a line of JSON when warm,
then a number of steps in, a line of JSON with their times out.
"""
import json
import os
import platform
import statistics
import subprocess
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = os.environ.get("PYTHON", "python3")
THREE = "resnet34+vgg11+wrn40_2"  # the three teachers of the inversion step


def cpu_field(name):
    try:
        with open("/proc/cpuinfo") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith(name))
    except (OSError, StopIteration):
        return ""


def cpu_name():
    return f"{cpu_field('model name') or platform.processor()} (family {cpu_field('cpu family')} model {cpu_field('model')})"


class Server:
    """A step program that stays warm. RuntimeError with the program's last words when it ends or takes too long."""

    def __init__(self, command, seconds, env=None):
        self.command, self.peaks = command, {}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, cwd=ROOT, env={**os.environ, **(env or {})})
        self.errors = []
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()
        self.hello = self.read(seconds)

    def read(self, seconds):
        late = threading.Event()

        def kill():
            late.set()
            self.process.kill()
        killer = threading.Timer(max(1.0, seconds), kill)
        killer.start()
        try:
            for line in self.process.stdout:
                try:
                    answer = json.loads(line)
                except ValueError:
                    continue
                if isinstance(answer, dict):
                    return answer
        finally:
            killer.cancel()
        self.process.wait()
        if late.is_set():
            raise RuntimeError(f"out of time after {seconds:.0f} s")
        why = "".join(self.errors).strip().splitlines()
        raise RuntimeError(why[-1] if why else f"ended with {self.process.returncode}")

    def run(self, steps, seconds=60):
        """The microseconds of each of these steps. The largest of everything else it reports stays in `peaks`."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.read(seconds)
        us = answer.pop("us")
        self.peaks = {key: max(value, self.peaks.get(key, 0)) for key, value in answer.items()}
        self.last = answer
        return us

    def ask_to_quit(self):
        try:
            self.process.stdin.write("quit\n")
            self.process.stdin.close()
        except (OSError, ValueError):
            pass

    def close(self):
        self.ask_to_quit()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def ours_command(build, step, *arguments):
    return [os.path.join(build, "bench", "workload_step"), "--step", step, *arguments, "--serve"]


def torch_command(step, *arguments):
    return [PYTHON, os.path.join(ROOT, "bench", "baseline_torch.py"), step, *arguments]


def ratio_of(pairs):
    """Medians of (ours, peer) pairs in microseconds, and the spread of their ratios."""
    ratios = sorted(peer / ours for ours, peer in pairs)
    return {"pairs_us": pairs, "ours_us": statistics.median(o for o, _ in pairs),
            "torch_us": statistics.median(t for _, t in pairs), "ratio": statistics.median(ratios),
            "ratio_min": ratios[0], "ratio_max": ratios[-1]}
