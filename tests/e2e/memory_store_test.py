"""Memory packs from outside: built, inspected, verified, timed; interrupted, damaged, too large for their budget."""
import json
import pathlib
import resource
import signal
import struct
import subprocess
import tempfile
import time
import unittest

import e2e

TABLE = {"raw_ids": True, "compressed_vocab": 1000, "pad_id": 2, "max_ngram": 3, "heads": 4, "head_dim": 256,
         "base_rows": [2000, 2000], "layer_ids": [1, 3], "format": "fp8_e4m3_e8m0"}


class MemoryStore(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.out = pathlib.Path(self.folder.name)
        self.pack = self.out / "t.engram"

    def config(self, **changes):
        path = self.out / "table.json"
        path.write_text(json.dumps({**TABLE, **changes}))
        return path

    def build(self, *more, **changes):
        return e2e.mneme_json("memory", "build", self.pack, "--config", self.config(**changes), *(more or ("--random", 1)))

    def refused(self, *arguments, code=1, **options):
        ran = e2e.mneme(*arguments, **options)
        self.assertEqual(ran.returncode, code, ran.stderr)
        lines = [line for line in ran.stderr.strip().splitlines() if "error" in line]
        self.assertEqual(len(lines), 1, ran.stderr)
        return lines[0]

    def test_build_inspect_verify(self):
        built = self.build()
        self.assertEqual(built["row_bytes"], 264)
        shown = e2e.mneme_json("memory", "inspect", self.pack)
        self.assertEqual(shown["rows"], built["rows"])
        self.assertEqual(shown["rows"], sum(map(int, shown["prime_sums"])))
        self.assertEqual(shown["bytes"], self.pack.stat().st_size)
        self.assertEqual(shown["bytes_per_token"], 2 * 8 * 264)
        self.assertEqual(shown["fingerprint"], built["fingerprint"])
        self.assertTrue(e2e.mneme_json("memory", "verify", self.pack)["ok"])
        before = self.pack.read_bytes()
        self.assertEqual(self.build(), built)  # the same again is the same
        self.assertEqual(self.pack.read_bytes(), before)
        self.assertEqual(sorted(p.name for p in self.out.iterdir()), ["t.engram", "table.json"])

    def test_bench_prints_its_contract_for_every_placement(self):
        self.build()
        for placement in ["ram", "mmap", "direct", "cache", "auto"]:
            with self.subTest(placement):
                got = e2e.mneme_json("memory", "bench", self.pack, "--placement", placement, "--tokens", 200)
                self.assertEqual(got["placement"], "ram" if placement == "auto" else placement)
                self.assertEqual(got["bytes_per_token"], 16 * 264)
                self.assertEqual(got["rows"], 200 * 16)
                self.assertGreater(got["rows_per_s"], 0)
                self.assertGreater(got["latency_us"]["p99"], 0)
                self.assertGreaterEqual(got["latency_us"]["p99"], got["latency_us"]["p50"])
                self.assertTrue(0 <= got["hit_rate"] <= 1)
                self.assertTrue(0 <= got["resident_fraction"] <= 1)
        line = e2e.mneme("memory", "bench", self.pack, "--placement", "cache", "--tokens", 5).stderr
        self.assertIn(str(self.pack), line)
        self.assertIn("cache", line)

    def test_a_warm_cache_hits_and_cold_reads_come_from_the_disk(self):
        self.build()
        warm = e2e.mneme_json("memory", "bench", self.pack, "--placement", "cache", "--memory-budget", "20M", "--tokens", 500,
                              "--warm", 20000, "--zipf", 1.3)
        self.assertGreater(warm["hit_rate"], 0.9)
        cold = e2e.mneme_json("memory", "bench", self.pack, "--placement", "direct", "--batch", 500, "--tokens", 500, "--ids",
                              "uniform", "--cold")
        self.assertEqual(cold["hit_rate"], 0)
        self.assertGreater(cold["disk_reads"], 100)
        self.assertLess(cold["disk_reads"], cold["distinct"])  # rows of a page are one read

    def test_interrupted_by_ctrl_c_and_continued(self):
        config = self.config(base_rows=[40000, 40000])
        arguments = [e2e.MNEME, "memory", "build", self.pack, "--config", config, "--random", "1"]
        partial = pathlib.Path(f"{self.pack}.partial")
        for attempt in range(20):
            child = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
            while child.poll() is None and not (partial.exists() and partial.stat().st_size > 20_000_000):
                time.sleep(0.001)
            child.send_signal(signal.SIGINT)
            error = child.communicate()[1]
            if child.returncode == 130:
                break
            self.assertEqual(child.returncode, 0, error)  # too fast for us
            self.pack.unlink()
        self.assertEqual(child.returncode, 130)
        self.assertIn("goes on", error)
        self.assertFalse(self.pack.exists())
        done = json.loads(subprocess.run([*arguments, "--json"], capture_output=True, text=True, check=True).stdout)
        self.assertGreater(done["resumed_rows"], 0)
        whole = self.out / "whole.engram"
        subprocess.run([*arguments[:3], whole, *arguments[4:]], capture_output=True, check=True)
        self.assertEqual(self.pack.read_bytes(), whole.read_bytes())
        self.assertFalse(partial.exists())

    def test_killed_while_building_and_continued(self):
        config = self.config(base_rows=[40000, 40000])
        arguments = [e2e.MNEME, "memory", "build", self.pack, "--config", config, "--random", "1", "--json"]
        self.pack.write_text("the old file")
        child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        partial = pathlib.Path(f"{self.pack}.partial")
        while child.poll() is None and not (partial.exists() and partial.stat().st_size > 1_000_000):
            time.sleep(0.001)
        child.kill()
        child.wait()
        if child.returncode:
            self.assertEqual(self.pack.read_text(), "the old file")
        subprocess.run(arguments, capture_output=True, check=True)
        self.assertTrue(e2e.mneme_json("memory", "verify", self.pack)["ok"])

    def test_two_writers(self):
        config = self.config(base_rows=[200000, 200000])
        arguments = ["memory", "build", self.pack, "--config", config, "--random", "1"]
        first = subprocess.Popen([e2e.MNEME, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        partial = pathlib.Path(f"{self.pack}.partial")
        while first.poll() is None and not (partial.exists() and partial.stat().st_size > 1_000_000):
            time.sleep(0.001)
        second = e2e.mneme(*arguments)
        overlapped = first.poll() is None
        self.assertEqual(first.wait(), 0)
        if second.returncode:
            self.assertIn("another process", second.stderr)
        else:
            self.assertFalse(overlapped, "both wrote at once")
        self.assertTrue(e2e.mneme_json("memory", "verify", self.pack)["ok"])

    def test_disk_full(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))

        self.pack.write_text("the old file")
        config = self.config()
        ran = subprocess.run([e2e.MNEME, "memory", "build", self.pack, "--config", config, "--random", "1"], capture_output=True,
                             text=True, preexec_fn=limit)
        self.assertEqual(ran.returncode, 1)
        self.assertIn("make space", ran.stderr)
        self.assertEqual(len(ran.stderr.strip().splitlines()), 1, ran.stderr)
        self.assertEqual(self.pack.read_text(), "the old file")
        self.build()
        self.assertTrue(e2e.mneme_json("memory", "verify", self.pack)["ok"])
        # And before it begins, where the disk cannot hold it at all.
        huge = self.config(base_rows=[10**12, 10**12])
        self.assertIn("free", self.refused("memory", "build", self.out / "huge.engram", "--config", huge, "--random", 1))
        self.assertFalse((self.out / "huge.engram.partial").exists())

    def test_damage_is_found(self):
        self.build()
        good = self.pack.read_bytes()
        for size, word in [(0, "0 bytes"), (100, "100 bytes"), (len(good) // 2, "incomplete"), (len(good) - 1, "incomplete")]:
            self.pack.write_bytes(good[:size])
            self.assertIn(word, self.refused("memory", "inspect", self.pack))
            self.refused("memory", "bench", self.pack)
        self.pack.write_bytes(good[:8] + struct.pack("<I", 7) + good[12:])
        self.assertIn("version 7", self.refused("memory", "inspect", self.pack))
        at = good.find(b"multipliers")
        self.pack.write_bytes(good[:at] + b"M" + good[at + 1:])
        self.assertIn("checksum", self.refused("memory", "inspect", self.pack))
        self.pack.write_bytes(good[:-5000] + bytes([good[-5000] ^ 1]) + good[-4999:])
        e2e.mneme_json("memory", "inspect", self.pack)
        self.assertIn("block", self.refused("memory", "verify", self.pack))
        self.refused("memory", "bench", self.pack, "--placement", "ram")
        self.refused("memory", "inspect", self.out / "absent.engram")
        self.refused("memory", "inspect", self.out)
        self.refused("memory", "bench", self.pack, "--memory-budget", "12Q", code=2)

    def test_the_budget_is_never_exceeded(self):
        """The address space of the process may grow by the budget and no more: a larger use would fail."""
        self.build(base_rows=[30000, 30000])  # 130 MB
        budget = 24_000_000

        def run(extra, *more):
            def limit():
                resource.setrlimit(resource.RLIMIT_DATA, (extra, extra))
            return subprocess.run([e2e.MNEME, "memory", "bench", self.pack, "--json", "--quiet", "--tokens", "3000", "--ids", "uniform", *more],
                                  capture_output=True, text=True, preexec_fn=limit)

        # What the program needs by itself, measured with a table of no budget to speak of.
        base = next(size for size in range(4_000_000, 400_000_000, 2_000_000)
                    if run(size, "--placement", "direct", "--memory-budget", "100K", "--queue-depth", "1").returncode == 0)
        for placement in ["cache", "direct", "auto"]:
            for batch in ["1", "64"]:
                with self.subTest(placement=placement, batch=batch):
                    ran = run(base + budget + 2_000_000, "--placement", placement, "--memory-budget", str(budget), "--batch", batch)
                    self.assertEqual(ran.returncode, 0, ran.stderr)
                    got = json.loads(ran.stdout)
                    self.assertLessEqual(got["resident_bytes"], budget)
                    if placement != "direct":
                        self.assertEqual(got["placement"], "cache")
                        self.assertGreater(got["resident_bytes"], budget // 2)
        self.assertNotEqual(run(base + budget, "--placement", "ram").returncode, 0)  # the limit bites
        line = self.refused("memory", "bench", self.pack, "--placement", "cache", "--memory-budget", "1000")
        self.assertIn("at least", line)

    def test_mmap_refuses_a_budget_that_it_cannot_keep(self):
        self.build()
        self.assertIn("use the placement cache", self.refused("memory", "bench", self.pack, "--placement", "mmap", "--memory-budget", "1M"))
        e2e.mneme_json("memory", "bench", self.pack, "--placement", "mmap", "--memory-budget", "1G", "--tokens", 5)

    def test_overlay(self):
        self.build()
        rows = self.out / "rows.jsonl"
        rows.write_text("".join(json.dumps({"row": r, "values": [0.5] * 256}) + "\n" for r in (7, 3)))
        overlay = self.out / "edit.overlay"
        before = self.pack.read_bytes()
        self.assertEqual(e2e.mneme_json("memory", "overlay", self.pack, overlay, "--rows", rows)["rows"], 2)
        ran = e2e.mneme("memory", "bench", self.pack, "--overlay", overlay, "--tokens", 10)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("2 rows replaced", ran.stderr)
        self.assertEqual(self.pack.read_bytes(), before)
        rows.write_text(json.dumps({"row": 7, "values": [0.5]}) + "\n")
        self.assertIn("line 1", self.refused("memory", "overlay", self.pack, overlay, "--rows", rows))
        self.build("--random", 2)
        self.assertIn("fingerprint", self.refused("memory", "bench", self.pack, "--overlay", overlay))

    def test_rows_of_a_checkpoint(self):
        """FP8 rows and scales of a safetensors file go into the pack as they are."""
        shown = self.build()
        rows = int(shown["rows"])
        per_layer = [int(s) for s in e2e.mneme_json("memory", "inspect", self.pack)["prime_sums"]]
        self.assertEqual(sum(per_layer), rows)
        header, data = {}, b""
        expected = []
        for layer, count in zip([1, 3], per_layer):
            weight = bytes((i * 7 + layer) % 126 for i in range(count * 256))
            scale = bytes(100 + (i % 30) for i in range(count * 8))
            expected.append((weight, scale))
            for name, kind, width, body in [("weight", "F8_E4M3", 256, weight), ("scale", "F8_E8M0", 8, scale)]:
                header[f"engram.{layer}.{name}"] = {"dtype": kind, "shape": [count, width], "data_offsets": [len(data), len(data) + len(body)]}
                data += body
        text = json.dumps(header).encode()
        source = self.out / "rows.safetensors"
        source.write_bytes(struct.pack("<Q", len(text)) + text + data)
        self.build("--from", source, "--weight", "engram.{layer}.weight", "--scale", "engram.{layer}.scale")
        self.assertTrue(e2e.mneme_json("memory", "verify", self.pack)["ok"])
        packed = self.pack.read_bytes()
        begin = len(packed) - -(-rows // 15) * 4096  # whole pages at the end
        for row in [0, 14, 15, per_layer[0] - 1, per_layer[0], rows - 1]:
            at = begin + row // 15 * 4096 + row % 15 * 264
            layer, local = (0, row) if row < per_layer[0] else (1, row - per_layer[0])
            weight, scale = expected[layer]
            self.assertEqual(packed[at:at + 264], weight[local * 256:local * 256 + 256] + scale[local * 8:local * 8 + 8], row)
        arguments = ["memory", "build", self.pack, "--config", self.config(), "--from", source]
        self.assertIn("no tensor", self.refused(*arguments, "--weight", "absent"))
        self.assertIn("scales", self.refused(*arguments, "--weight", "engram.{layer}.weight"))
        self.assertIn("wanted", self.refused(*arguments, "--weight", "engram.1.scale"))
        self.refused(*arguments, code=2)

    def test_token_classes_need_the_right_tokenizer(self):
        model = e2e.TOP / "tests/data/models/llama.gguf"
        config = self.config(raw_ids=False)
        self.refused("memory", "build", self.pack, "--config", config, "--random", 1, code=2)
        self.assertIn("token classes", self.refused("memory", "build", self.pack, "--config", config, "--random", 1, "--tokenizer", model))
        table = {k: v for k, v in TABLE.items() if k not in ("raw_ids", "compressed_vocab")}
        config.write_text(json.dumps(table))
        e2e.mneme_json("memory", "build", self.pack, "--config", config, "--random", 1, "--tokenizer", model)
        shown = e2e.mneme_json("memory", "inspect", self.pack)
        self.assertEqual(shown["token_map"]["classes"], shown["table"]["compressed_vocab"])
        got = e2e.mneme_json("memory", "bench", self.pack, "--ids", "text", "--model", model, "--text", "some words of a text", "--tokens", 5)
        self.assertEqual(got["rows"], 5 * 16)

    def test_the_examples_in_c_and_cpp(self):
        self.build()
        folder = pathlib.Path(e2e.MNEME).parent
        c, cpp = folder / "memory_c", folder / "memory_cpp"
        if not c.exists():
            self.skipTest("the examples were not built")
        outputs = set()
        sums = set()
        for placement in ["ram", "mmap", "direct", "cache", "auto"]:
            ran = subprocess.run([c, self.pack, placement, "0", "17", "17", "1234"], capture_output=True, text=True)
            self.assertEqual(ran.returncode, 0, ran.stderr)
            self.assertIn("t.engram: ", ran.stderr)
            outputs.add(ran.stdout)
            ran = subprocess.run([cpp, self.pack, placement, "20"], capture_output=True, text=True)
            self.assertEqual(ran.returncode, 0, ran.stderr)
            sums.add(ran.stdout)
        self.assertEqual((len(outputs), len(sums)), (1, 1))
        lines = outputs.pop().splitlines()
        self.assertEqual(len(lines), 4)
        self.assertEqual(lines[1], lines[2])
        self.assertNotEqual(lines[0].split()[2], lines[1].split()[2])
        begin = len(self.pack.read_bytes()) - -(-e2e.mneme_json("memory", "inspect", self.pack)["rows"] // 15) * 4096
        want = 1469598103934665603
        for byte in self.pack.read_bytes()[begin:begin + 264]:
            want = (want ^ byte) * 1099511628211 % 2**64
        self.assertEqual(lines[0], f"row 0 {want:016x}")
        for program in (c, cpp):
            ran = subprocess.run([program, self.out / "absent", "ram", "1"], capture_output=True, text=True)
            self.assertEqual(ran.returncode, 1)
            self.assertIn("absent", ran.stderr)
        ran = subprocess.run([c, self.pack, "ram", "99999999"], capture_output=True, text=True)
        self.assertEqual(ran.returncode, 1)
        self.assertIn("error 1: row 99999999 is outside", ran.stderr)


if __name__ == "__main__":
    e2e.main()
