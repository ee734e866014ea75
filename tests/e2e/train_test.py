"""`mneme train` from outside, on a text of a few kilobytes: it learns, its checkpoints run in the engine, a run that was
killed or interrupted comes back to the bit, and what cannot be is refused in one line."""
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree

import e2e
import train_fixture as fixture


class Train(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not fixture.available():
            raise unittest.SkipTest(f"{fixture.PROGRAM} is not built: it needs libtorch")

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)

    def train(self, config, *arguments, **options):
        return e2e.mneme("train", config, *arguments, timeout=300, **options)

    def finished(self, config, *arguments):
        """Trains, and must succeed."""
        ran = self.train(config, *arguments)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        return ran

    def assertRefused(self, ran, *words):
        self.assertEqual(ran.returncode, 1, ran.stderr)
        lines = [line for line in ran.stderr.splitlines() if "error:" in line]
        self.assertEqual(len(lines), 1, ran.stderr)
        for word in words:
            self.assertIn(word, lines[0])


class Learning(Train):
    def test_a_run_learns_and_its_checkpoint_runs_in_the_engine(self):
        config = fixture.write_run(self.folder, steps=60, samples={"every": 30, "prompts": ["the cat"], "tokens": 8, "temperature": 0})
        ran = self.finished(config, "--json")
        out = self.folder / "out"
        printed = [json.loads(line) for line in ran.stdout.splitlines()]
        self.assertEqual(printed, fixture.log(out))
        steps = [line for line in printed if "loss" in line]
        self.assertEqual([line["step"] for line in steps], list(range(1, 61)))
        for name in ("lr", "tokens_per_second", "mfu", "gradient_norm", "tokens", "seconds"):
            self.assertIn(name, steps[-1])
        self.assertEqual(steps[-1]["tokens"], 60 * 8 * 32)
        self.assertGreater(steps[0]["loss"], 5)
        self.assertLess(steps[-1]["loss"], 2.6)
        validated = [line for line in printed if "validation_loss" in line]
        self.assertEqual([line["step"] for line in validated], [20, 40, 60])
        self.assertLess(validated[-1]["validation_loss"], validated[0]["validation_loss"])
        self.assertEqual([line["step"] for line in printed if "sample" in line], [30, 60])
        self.assertEqual(sorted(p.name for p in out.glob("step-*")), ["step-00000055", "step-00000060"])
        self.assertEqual((out / "latest").read_text(), "step-00000060\n")
        self.assertEqual(len(xml.etree.ElementTree.parse(out / "curves.svg").findall(".//{*}circle")), 3)  # the validations
        self.assertIn("<svg", (out / "curves.html").read_text())
        self.assertRegex(ran.stderr, r"step 60/60 +loss [\d.]+ +[\d,]+ tokens/s +MFU \d+ % +0:00 left")

        # The same numbers in the engine: perplexity of its windows, each in a context of its own, and greedy text.
        model = out / "step-00000060"
        text = e2e.mneme_json("generate", model, "-p", "the cat", "-n", 8, "--temp", 0, "--activation", "float")["text"]
        self.assertEqual(text, [line["sample"] for line in printed if "sample" in line][-1])
        perplexity = e2e.mneme_json("perplexity", model, self.folder / "validation.txt", "--ctx", 64, "--activation", "float")
        self.assertLess(abs(perplexity["nll"] - validated[-1]["validation_loss"]), 0.15)

    def test_a_model_that_spikes_trains_as_it_runs(self):
        model = fixture.MODEL | {"defaults": fixture.MODEL["defaults"] | {"activation": {"type": "spike", "k": 4, "dead_zone": 0.6}}}
        config = fixture.write_run(self.folder, steps=60, model=model)
        ran = self.finished(config)
        lines = fixture.log(self.folder / "out")
        silent = [line["silent"] for line in lines if "loss" in line]
        self.assertEqual(len(silent), 60)
        self.assertTrue(all(0.02 < share < 0.9 for share in silent), silent)
        self.assertRegex(ran.stderr, r"silent [\d.]+ %")
        validated = [line["validation_loss"] for line in lines if "validation_loss" in line]
        self.assertLess(validated[-1], 2.7)
        checkpoint = self.folder / "out/step-00000060"
        spiking = e2e.mneme_json("perplexity", checkpoint, self.folder / "validation.txt", "--ctx", 64)
        self.assertLess(abs(spiking["nll"] - validated[-1]), 0.15)
        shown = e2e.mneme_json("spikes", checkpoint, "-f", self.folder / "validation.txt", "--ctx", 64, "--no-ppl")
        self.assertEqual((shown["k"], shown["dead_zone"]), (4, 0.6))
        self.assertLess(abs(shown["mean"]["silent"] - silent[-1]), 0.1)

    def test_a_mixture_of_experts_trains_as_it_runs(self):
        ffn = {"type": "moe", "hidden": 32, "experts": 6, "null_experts": 2, "top_k": 3, "shared": 1, "selection_bias": True}
        model = fixture.MODEL | {"defaults": fixture.MODEL["defaults"] | {"ffn": ffn}}
        config = fixture.write_run(self.folder, steps=60, model=model, experts={"balance": 0.02, "bias_rate": 0.005, "null_share": 0.25})
        ran = self.finished(config)
        self.assertRegex(ran.stderr, r"experts [\d.]+, CV [\d.]+, \d+ starved")
        lines = fixture.log(self.folder / "out")
        steps = [line for line in lines if "loss" in line]
        self.assertTrue(all(1 < line["active"] < 3 and line["load_cv"] >= 0 and line["starved"] >= 0 for line in steps), steps)
        reports = [line["experts"] for line in lines if "experts" in line]
        self.assertEqual([layer["layer"] for layer in reports[-1]], [0, 1, 2])
        for layer in reports[-1]:
            self.assertEqual(len(layer["load"]), 6)
            self.assertAlmostEqual(sum(layer["load"]), 1, delta=1e-4)
            self.assertLess(layer["null_share"], 0.5)
        validated = [line["validation_loss"] for line in lines if "validation_loss" in line]
        self.assertLess(validated[-1], 2.7)
        checkpoint = self.folder / "out/step-00000060"
        perplexity = e2e.mneme_json("perplexity", checkpoint, self.folder / "validation.txt", "--ctx", 64, "--activation", "float")
        self.assertLess(abs(perplexity["nll"] - validated[-1]), 0.15)
        shown = e2e.mneme_json("experts", checkpoint, "-f", self.folder / "validation.txt", "--ctx", 32)
        active = sum(layer["mean_active"] for layer in reports[-1]) / 3
        self.assertLess(abs(shown["mean_active"] - active), 0.3)

    def test_a_mixture_goes_on_to_the_bit_and_in_two_processes(self):
        ffn = {"type": "moe", "hidden": 16, "experts": 4, "top_k": 2, "selection_bias": True}
        model = fixture.MODEL | {"defaults": fixture.MODEL["defaults"] | {"ffn": ffn}}
        config = fixture.write_run(self.folder, steps=10, model=model, experts={"balance": 0, "bias_rate": 0.01}, schedule={"type": "constant", "warmup": 0})
        self.finished(config, "--out", self.folder / "whole")
        self.finished(config, "--out", self.folder / "parts", "--steps", 5)
        self.finished(config, "--out", self.folder / "parts", "--resume")
        self.assertEqual(fixture.losses(self.folder / "whole")[0], fixture.losses(self.folder / "parts")[0])
        self.assertEqual(*((self.folder / out / "step-00000010/model.safetensors").read_bytes() for out in ("whole", "parts")))
        # The bias is moved by the counts of both; the price, which is off, is each pass's own.
        self.finished(config, "--out", self.folder / "two", "--processes", 2)
        one, two = fixture.losses(self.folder / "whole")[0], fixture.losses(self.folder / "two")[0]
        for step in one:
            self.assertAlmostEqual(one[step][0], two[step][0], delta=2e-3)

    def test_a_router_that_is_no_number_ends_the_run_and_says_where(self):
        model = fixture.MODEL | {"defaults": fixture.MODEL["defaults"] | {"ffn": {"type": "moe", "hidden": 16, "experts": 4, "top_k": 2}}}
        ran = self.train(fixture.write_run(self.folder, model=model, optimiser={"lr": 1e20, "clip": 0}, schedule={"type": "constant", "warmup": 0}))
        self.assertRefused(ran, "step ", "is not a finite number")

    def test_rows_that_cannot_fire_are_refused(self):
        model = fixture.MODEL | {"defaults": fixture.MODEL["defaults"] | {"ffn": {"type": "dense", "hidden": 72}, "activation": {"down": "spike"}}}
        self.assertRefused(self.train(fixture.write_run(self.folder, model=model)), "layers[0].activation.down", "multiple of 32")

    def test_the_same_run_gives_the_same_bits(self):
        config = fixture.write_run(self.folder, steps=6)
        for out in ("a", "b"):
            self.finished(config, "--out", self.folder / out)
        self.assertEqual(fixture.losses(self.folder / "a"), fixture.losses(self.folder / "b"))
        for name in ("model.safetensors", "facts.engram", "optimiser.safetensors"):
            self.assertEqual((self.folder / "a/step-00000006" / name).read_bytes(), (self.folder / "b/step-00000006" / name).read_bytes())

    def test_accumulated_batches_are_large_batches(self):
        for out, batch in (("whole", {"sequences": 8}), ("parts", {"sequences": 2, "accumulate": 4})):
            config = fixture.write_run(self.folder, steps=5, batch=batch)
            self.finished(config, "--out", self.folder / out)
        whole, parts = fixture.losses(self.folder / "whole")[0], fixture.losses(self.folder / "parts")[0]
        for step in whole:
            self.assertAlmostEqual(whole[step][0], parts[step][0], delta=1e-4)

    def test_every_option_of_training_learns(self):
        variants = {"muon": {"optimiser": {"type": "muon", "lr": 0.01, "rows": {"type": "scalar"}}}, "bf16": {"precision": "bf16"},
                    "recomputed": {"checkpoint_layers": True}, "wsd": {"schedule": {"type": "wsd", "warmup": 2}}}
        config = fixture.write_run(self.folder, steps=25)
        self.finished(config, "--out", self.folder / "plain")
        plain = fixture.losses(self.folder / "plain")[0]
        for name, changes in variants.items():
            with self.subTest(name):
                config = fixture.write_run(self.folder, steps=25, **changes)
                ran = self.finished(config, "--out", self.folder / name)
                losses = fixture.losses(self.folder / name)[0]
                self.assertLess(losses[25][0], 3.2)
                if name == "recomputed":
                    self.assertAlmostEqual(losses[25][0], plain[25][0], delta=1e-4)

    def test_lines_of_json_and_documents_that_are_held_out(self):
        fixture.write_run(self.folder)
        lines = [json.dumps({"body": line}) for line in (self.folder / "train.txt").read_text().splitlines() if line]
        (self.folder / "lines.jsonl").write_text("\n".join(lines) + "\n")
        config = fixture.write_run(self.folder, steps=4, data={"train": ["lines.jsonl"], "hold_out": 0.2, "text_field": "body", "length": 32},
                                   validate={"every": 2, "tokens": 256})
        self.finished(config)
        self.assertEqual(sorted(fixture.losses(self.folder / "out")[1]), [2, 4])
        shards = json.loads((self.folder / "out/shards/train/shards.json").read_text())
        self.assertIn("validation", json.dumps(shards))

    def test_a_run_stops_early_when_validation_brings_nothing(self):
        config = fixture.write_run(self.folder, steps=40, validate={"every": 2, "tokens": 256}, early_stop={"patience": 2, "min_delta": 50})
        ran = self.finished(config)
        self.assertIn("stopped early after step 6", ran.stderr)  # the first validation is the first gain
        self.assertTrue((self.folder / "out/step-00000006").is_dir())

    def test_training_goes_on_from_another_checkpoints_weights(self):
        config = fixture.write_run(self.folder, steps=30)
        self.finished(config)
        second = fixture.write_run(self.folder, steps=2, model="out/step-00000030", tokenizer=None)
        ran = self.finished(second, "--out", self.folder / "second")
        self.assertLess(fixture.losses(self.folder / "second")[0][1][0], fixture.losses(self.folder / "out")[0][20][0])


class Resuming(Train):
    def expected(self, config):
        """Losses of the run that nothing disturbs."""
        whole = self.folder / "whole"
        ran = self.finished(config, "--out", whole)
        return fixture.losses(whole)

    def test_killed_at_any_moment_it_comes_back_to_the_bit(self):
        config = fixture.write_run(self.folder)
        want = self.expected(config)
        pick = random.Random(5)
        kills = 0
        for _ in range(30):
            process = fixture.start(config, "--resume")
            try:
                process.communicate(timeout=pick.uniform(0.4, 2.5) if kills < 3 else 300)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
        self.assertEqual(process.returncode, 0)
        self.assertEqual(fixture.losses(self.folder / "out"), want)
        self.assertEqual([p.name for p in (self.folder / "out").glob(".[ru]*")], [])

    def test_ctrl_c_saves_first(self):
        config = fixture.write_run(self.folder, steps=4000, save={"every": 1000})
        process = fixture.start(config, "--json")
        for _ in range(3):
            self.assertTrue(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        last = fixture.log(self.folder / "out")[-1]
        self.assertIn("checkpoint", last)
        self.assertIn(f"saved {self.folder / 'out' / last['checkpoint']}", errors)
        ran = self.train(config, "--resume", "--steps", last["step"])
        self.assertRefused(ran, '"steps" differs')  # the cosine would have been another

    def test_the_other_signals_save_too_and_a_second_ends_at_once(self):
        for i, sent in enumerate((signal.SIGTERM, signal.SIGHUP)):
            config = fixture.write_run(self.folder, steps=4000, save={"every": 0}, validate=None, out=f"out{i}")
            process = fixture.start(config, "--json")
            self.assertTrue(process.stdout.readline())
            process.send_signal(sent)
            _, errors = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 130, errors)
            self.assertIn("interrupted after step", errors)
        config = fixture.write_run(self.folder, steps=4000, save={"every": 0}, validate=None, out="out2",
                                   batch={"sequences": 4, "accumulate": 20000})
        process = fixture.start(config)
        fixture.wait_for_handlers(process)  # then it may still prepare the data or be in the middle of a long step
        fixture.send_and_wait(process, signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM, errors)
        self.assertEqual([p.name for p in (self.folder / "out2").glob("*.tmp*")], [])

    def test_no_thread_that_computes_receives_the_signals(self):
        # A signal's frame below the stack pointer of oneDNN's generated code lands in the heap: src/train/interrupts.h.
        config = fixture.write_run(self.folder, steps=100000, save={"every": 0}, validate=None, threads=2)
        process = fixture.start(config, "--json")
        try:
            self.assertTrue(process.stdout.readline())
            masks = {}
            for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
                fields = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
                masks[int(task.name)] = int(fields["SigBlk"], 16)
            blocked = lambda mask: all(mask >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
            self.assertTrue(blocked(masks[process.pid]), masks)
            self.assertGreaterEqual(sum(map(blocked, masks.values())), 2, masks)  # the two that compute
            self.assertFalse(all(map(blocked, masks.values())), masks)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)

    def test_what_reads_the_progress_may_go_first(self):
        # Ctrl-C in `mneme train ... 2>&1 | tee log` ends tee before the step is over; a closed terminal likewise.
        config = fixture.write_run(self.folder, steps=100000, save={"every": 0}, validate=None)
        process = fixture.start(config)
        self.assertTrue(process.stderr.readline())
        process.stderr.close()
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(60), 130)
        self.assertEqual(len(list((self.folder / "out").glob("step-*"))), 1)
        process = fixture.start(config, "--json", "--out", self.folder / "second")  # nothing but the pipe ends
        self.assertTrue(process.stdout.readline())
        process.stdout.close()
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        last = fixture.log(self.folder / "second")[-1]
        self.assertTrue((self.folder / "second" / last["checkpoint"]).is_dir())

    def test_a_run_that_stopped_early_has_ended(self):
        config = fixture.write_run(self.folder, steps=40, validate={"every": 2, "tokens": 256}, early_stop={"patience": 2, "min_delta": 50})
        self.finished(config)
        want = fixture.losses(self.folder / "out")
        ran = self.finished(config, "--resume")  # as after a kill between the last checkpoint and the end
        self.assertIn("stopped early after step 6", ran.stderr)
        self.assertEqual(fixture.losses(self.folder / "out"), want)
        more = fixture.write_run(self.folder, steps=40, validate={"every": 2, "tokens": 256}, early_stop={"patience": 3, "min_delta": 50})
        self.assertIn("stopped early after step 8", self.finished(more, "--resume").stderr)

    def test_a_model_that_is_a_file_may_move_but_not_change(self):
        (self.folder / "model.json").write_text(json.dumps(fixture.MODEL))
        config = fixture.write_run(self.folder, steps=5, model="model.json")
        self.finished(config)
        (self.folder / "model.json").write_text(json.dumps(fixture.MODEL | {"norm": {"eps": 0.1}}))  # every tensor keeps its shape
        self.assertRefused(self.train(config, "--resume"), "is of another model", '"model.norm.eps" differs')
        (self.folder / "moved.json").write_text(json.dumps(fixture.MODEL))
        self.finished(fixture.write_run(self.folder, steps=5, model="moved.json"), "--resume")

    def test_an_interrupted_run_is_the_same_run(self):
        config = fixture.write_run(self.folder, steps=12, schedule={"type": "constant"})
        want = self.expected(config)
        self.finished(config, "--steps", 7)  # a constant rate: the first steps are the same
        ran = self.finished(config, "--resume")
        self.assertIn("going on after step 7 of 12", ran.stderr)
        self.assertEqual(fixture.losses(self.folder / "out")[0], want[0])
        again = self.train(config, "--resume")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(fixture.losses(self.folder / "out")[0], want[0])

    def test_a_damaged_checkpoint_is_left_aside(self):
        config = fixture.write_run(self.folder, steps=12)
        self.finished(config)
        file = self.folder / "out/step-00000012/model.safetensors"
        raw = bytearray(file.read_bytes())
        raw[-5] ^= 1
        file.write_bytes(raw)
        want = fixture.losses(self.folder / "out")
        ran = self.finished(config, "--resume")
        self.assertIn("step-00000012/model.safetensors is damaged", ran.stderr)
        self.assertIn("going on after step 10", ran.stderr)
        self.assertEqual(fixture.losses(self.folder / "out"), want)

    def test_another_config_is_refused_by_its_first_field(self):
        config = fixture.write_run(self.folder, steps=5)
        self.finished(config)
        for field, changes in {"optimiser.lr": {"optimiser": {"lr": 0.02}}, "seed": {"seed": 2}, "model.d_model": {"model": fixture.MODEL | {"d_model": 64}},
                               "data.length": {"data": {"train": ["train.txt"], "validation": ["validation.txt"], "length": 16}}}.items():
            with self.subTest(field):
                changed = fixture.write_run(self.folder, steps=5, **changes)
                self.assertRefused(self.train(changed, "--resume"), f'"{field}" differs', "run.json")
        self.finished(fixture.write_run(self.folder, steps=5, save={"every": 1, "keep": 7}), "--resume")

    def test_a_second_run_into_the_same_folder_is_refused(self):
        config = fixture.write_run(self.folder, steps=2)
        self.finished(config)
        self.assertRefused(self.train(config), "holds a run already", "--resume")
        (self.folder / "out/latest").unlink()  # as if killed before it was written
        self.assertRefused(self.train(config), "holds a run already", "--resume")
        slow = fixture.write_run(self.folder, steps=100000, out="slow", save={"every": 0})
        process = fixture.start(slow, "--json")
        self.assertTrue(process.stdout.readline())
        self.assertRefused(self.train(slow, "--resume"), "another mneme-train is writing")
        process.kill()
        process.communicate()


class BadInput(Train):
    def refused(self, *words, **changes):
        self.assertRefused(self.train(fixture.write_run(self.folder, **changes)), *words)
        self.assertFalse((self.folder / "out/latest").exists())

    def test_configs(self):
        self.refused("run.json: batch.sequencs is not a known field; did you mean \"sequences\"?", batch={"sequencs": 4})
        self.refused("steps and tokens are both given", tokens=1000)
        self.refused("early_stop.patience is given, but validate.every is 0", validate={"every": 0}, early_stop={"patience": 2})
        self.refused("model: layers[0].mixer.type is \"fulll\"", model=fixture.MODEL | {"layers": [{"mixer": {"type": "fulll"}}]})
        self.refused("device", device="gpu9")
        self.refused("tokenizer is missing", tokenizer=None)
        (self.folder / "broken.json").write_text("{")
        self.assertRefused(self.train(self.folder / "broken.json"), "broken.json")
        self.assertRefused(self.train(self.folder / "absent.json"), "absent.json")

    def test_sizes_that_no_machine_has(self):
        self.refused("which is too large", batch={"sequences": 1 << 20, "accumulate": 1 << 20}, steps=None, tokens=1,
                     data={"train": ["train.txt"], "length": 1 << 24}, validate=None)
        plain = {k: v for k, v in fixture.MODEL.items() if k != "tables"} | {"layers": [{"mixer": {"type": "full"}}]}
        config = fixture.write_run(self.folder, model=plain, batch={"sequences": 1 << 19}, data={"train": ["train.txt"], "length": 32}, validate=None)

        def limit():  # the embeddings of a pass are 2 GiB
            resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        ran = subprocess.run([e2e.MNEME, "train", config], capture_output=True, text=True, timeout=300, preexec_fn=limit)
        self.assertRefused(ran, "out of memory; use a smaller batch.sequences")
        self.assertNotIn("bug", ran.stderr)

    def test_a_checkpoint_without_its_table(self):
        self.finished(fixture.write_run(self.folder, steps=2))
        start = self.folder / "start"
        shutil.copytree(self.folder / "out/step-00000002", start)
        os.rename(start / "facts.engram", start / "other.engram")
        self.assertRefused(self.train(fixture.write_run(self.folder, steps=2, model="start"), "--out", self.folder / "second"),
                           'reads the memory table "facts"', "facts.engram is not there")

    def test_texts(self):
        data = {"validation": ["validation.txt"], "length": 32}
        (self.folder / "empty.txt").write_text("")
        (self.folder / "binary.txt").write_bytes(bytes(range(256)) * 100)
        self.refused("absent.txt", data=data | {"train": ["absent.txt"]})
        self.refused("empty.txt", data=data | {"train": ["empty.txt"]})
        self.refused("binary.txt", data=data | {"train": ["binary.txt"]})
        (self.folder / "short.txt").write_text("too short")
        self.refused("32", data=data | {"train": ["short.txt"]})

    def test_a_tokenizer_that_does_not_fit(self):
        self.refused("257 tokens, but model.vocab is 200", model={k: v for k, v in fixture.MODEL.items() if k != "tables"} | {
            "vocab": 200, "layers": [{"mixer": {"type": "full"}}]})

    def test_shards_that_changed(self):
        config = fixture.write_run(self.folder, steps=4)
        self.finished(config)
        shard = next((self.folder / "out/shards/train").glob("train-*"))
        raw = bytearray(shard.read_bytes())
        raw[len(raw) // 2] ^= 1
        shard.write_bytes(raw)
        second = fixture.write_run(self.folder, steps=4, out="second", data={"train": ["out/shards/train"], "length": 32}, validate=None)
        self.assertRefused(self.train(second), shard.name)

    def test_a_shard_that_is_cut_while_it_is_read(self):
        config = fixture.write_run(self.folder, steps=4000, save={"every": 0}, validate=None)
        process = fixture.start(config, "--json")
        for _ in range(3):
            self.assertTrue(process.stdout.readline())
        shard = next((self.folder / "out/shards").rglob("train-*"))
        os.truncate(shard, 0)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, errors)
        self.assertRegex(errors.splitlines()[-1], f"{shard.name} shrank from .* while it was in use")

    def test_a_text_that_changed_since(self):
        config = fixture.write_run(self.folder, steps=4)
        self.finished(config)
        with open(self.folder / "train.txt", "a") as text:
            text.write("one more line\n")
        self.assertRefused(self.train(config, "--resume"), "train")

    def test_a_loss_that_is_no_number_stops_the_run(self):
        config = fixture.write_run(self.folder, steps=40, optimiser={"lr": 1e25, "clip": 0}, schedule={"type": "constant"}, save={"every": 1})
        ran = self.train(config)
        self.assertRefused(ran, "is not a finite number; it began in", "step ")
        self.assertTrue((self.folder / "out/latest").exists())
        poisoned = self.folder / "poisoned"
        good = fixture.write_run(self.folder, steps=2, out="good")
        self.finished(good)
        shutil.copytree(self.folder / "good/step-00000002", poisoned)
        file = poisoned / "model.safetensors"
        raw = bytearray(file.read_bytes())
        header = json.loads(raw[8:8 + struct.unpack_from("<Q", raw)[0]])
        name = "model.layers.1.mlp.up_proj.weight"
        at = 8 + struct.unpack_from("<Q", raw)[0] + header[name]["data_offsets"][0]
        struct.pack_into("<f", raw, at, 3e38)  # finite, but not for long
        file.write_bytes(raw)
        ran = self.train(fixture.write_run(self.folder, steps=9, model="poisoned", out="third"))
        self.assertRefused(ran, "step 1", "it began in")

    def test_a_full_disk_leaves_the_old_checkpoint(self):
        config = fixture.write_run(self.folder, steps=30, save={"every": 5, "keep": 0}, validate=None)
        self.finished(config, "--steps", 1, "--out", self.folder / "one")
        size = sum(f.stat().st_size for f in (self.folder / "one/step-00000001").iterdir())
        shards = sum(f.stat().st_size for f in (self.folder / "one/shards").rglob("*") if f.is_file())
        small = self.folder / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={(2 * size + shards + (400 << 10)) >> 10}k", "none", str(small)], capture_output=True, text=True)
        if mounted.returncode:
            self.skipTest("a small file system cannot be mounted here")
        self.addCleanup(lambda: subprocess.run(["umount", str(small)], check=True))
        ran = self.train(config, "--out", small / "out")
        self.assertRefused(ran, "No space left")
        kept = sorted(p.name for p in (small / "out").glob("step-*"))
        self.assertIn("step-00000005", kept)
        self.assertEqual(e2e.mneme_json("generate", small / "out" / kept[-1], "-p", "the", "-n", 2)["generated_tokens"], 2)
        self.assertEqual([p.name for p in (small / "out").glob(".u*")], [])

    def test_a_file_that_may_not_grow_is_a_full_disk(self):
        config = fixture.write_run(self.folder, steps=30, save={"every": 5}, validate=None)
        self.finished(config, "--steps", 1, "--out", self.folder / "one")
        size = (self.folder / "one/step-00000001/model.safetensors").stat().st_size - 1
        ran = subprocess.run([e2e.MNEME, "train", config], capture_output=True, text=True, timeout=300,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
        self.assertRefused(ran, "model.safetensors", "File too large")
        self.assertEqual([p.name for p in (self.folder / "out").iterdir() if "step" in p.name or p.name == "latest"], [])
        self.finished(config, "--resume")  # nothing was saved, so it begins again

    def test_without_the_trainer_one_line_says_how_to_get_it(self):
        config = fixture.write_run(self.folder)
        ran = self.train(config, env={"MNEME_TRAIN_PROGRAM": self.folder / "absent"})
        self.assertRefused(ran, "MNEME_TRAIN_PROGRAM names", "absent")
        alone = self.folder / "alone"
        alone.mkdir()
        shutil.copy(e2e.MNEME, alone / "mneme")
        ran = subprocess.run([alone / "mneme", "train", config], capture_output=True, text=True, env={k: v for k, v in os.environ.items() if k != "MNEME_TRAIN_PROGRAM"})
        self.assertRefused(ran, "libtorch-dev", "./run.sh --build-train")


if __name__ == "__main__":
    e2e.main()
