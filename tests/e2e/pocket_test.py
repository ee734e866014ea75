"""The model that the repository ships, from outside: every kind of block and a memory in 6 MB. It answers no questions but
continues texts, so it is judged by what it predicts, and by whether every way of running it gives the same numbers."""
import json
import pathlib
import shutil
import tempfile
import unittest

import e2e

MODELS = e2e.TOP / "models"
MODEL, PACK, CARD = MODELS / "pocket.gguf", MODELS / "pocket.engram", MODELS / "pocket.json"
HELD_OUT = e2e.TOP / "tests/data/pocket/held_out.txt"  # from documents that no training has seen
PROMPT = "In the morning the king rose early, and"


def kinds(layer):
    mixer = layer["mixer"]
    return {mixer["type"]} | {branch["type"] for branch in mixer.get("of", [])}


class PocketTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mneme pocket "))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def ids(self, text=PROMPT):
        return ",".join(map(str, e2e.mneme_json("tokenize", MODEL, text)["ids"]))

    def logits(self, model, *options):
        """In f32 throughout: rounded caches and activations would hide small differences, or make some."""
        return e2e.mneme_json("logits", model, "--ids", self.ids(), "--all", "--kv", "f32", *options)["logits"]

    def generate(self, *arguments, model=MODEL):
        return e2e.mneme_json("generate", model, "-p", PROMPT, "-n", "40", "--quiet", *arguments)["text"]

    def perplexity(self, model=MODEL, *options):
        return e2e.mneme_json("perplexity", model, HELD_OUT, "--ctx", "512", *options)

    def test_it_is_small_and_has_every_kind_of_block(self):
        self.assertLessEqual(MODEL.stat().st_size + PACK.stat().st_size, 6_000_000)
        shown = e2e.mneme_json("inspect", MODEL)
        found = set().union(*(kinds(layer) for layer in shown["config"]["layers"]))
        self.assertEqual(found, {"full", "window", "sparse", "gla", "delta", "parallel"})
        memory, = shown["memory"]
        self.assertEqual(memory["path"], str(PACK))
        self.assertEqual(shown["unused_tensors"], [])

    def test_the_file_names_its_licence_and_its_texts(self):
        head = MODEL.read_bytes()[:1 << 20]
        for text in (b"general.license", b"general.source"):
            self.assertIn(text, head)
        for source in json.loads(CARD.read_text())["sources"]:
            self.assertIn(source.encode(), head)

    def test_it_predicts_held_out_text_as_the_card_says(self):
        card = json.loads(CARD.read_text())
        got = self.perplexity()
        self.assertAlmostEqual(got["nll"], card["excerpt"]["nll"], delta=0.02)
        self.assertGreater(got["tokens"], 2000)
        self.assertLess(card["model"], card["kneser_ney_bytes"]["5"])  # the goal, and whether it is reached, is in pocket.md
        self.assertLess(card["recited_at_temperature_1"]["share"], 0.2)

    def test_threads_placements_and_cache_types_agree(self):
        want = self.logits(MODEL)
        self.assertEqual(len(want), len(self.ids().split(",")))
        self.assertEqual(self.logits(MODEL, "--threads", "1"), want)
        for placement in ("ram", "mmap", "cache"):
            self.assertEqual(self.logits(MODEL, "--memory", f"{PACK}:{placement}"), want, placement)
        near = e2e.mneme_json("logits", MODEL, "--ids", self.ids(), "--all")["logits"]  # f16 keys and values
        self.assertLess(max(abs(a - b) for x, y in zip(near, want) for a, b in zip(x, y)), 0.25)

    def test_generate_is_a_function_of_its_seed(self):
        first = self.generate("--temp", "1", "--seed", "7")
        self.assertEqual(self.generate("--temp", "1", "--seed", "7", "--threads", "1"), first)
        self.assertNotEqual(self.generate("--temp", "1", "--seed", "8"), first)
        likely = self.generate("--temp", "0")
        self.assertEqual(len(likely.splitlines()[0].split()) > 2, True, likely)
        words = [w.strip(".,;:!?\"'“”‘’()_-—").lower() for w in likely.split()]
        self.assertTrue({"the", "and", "of", "to", "he", "his", "in", "it", "was"} & set(words), likely)

    def test_run_continues_and_says_that_it_is_no_assistant(self):
        ran = e2e.mneme("run", MODEL, "-p", PROMPT, "-n", "12", "--temp", "0")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("no chat template", ran.stderr)
        self.assertIn("memory of layer", ran.stderr)
        self.assertGreater(len(ran.stdout.split()), 2)

    def test_a_session_goes_on_as_if_it_had_not_stopped(self):
        session = self.folder / "text.session"
        whole = self.generate("--temp", "0", "--ignore-eos")
        first = e2e.mneme_json("generate", MODEL, "-p", PROMPT, "-n", "15", "--temp", "0", "--ignore-eos", "--session", session)["text"]
        self.assertTrue(whole.startswith(first), (whole, first))
        ids = e2e.mneme_json("tokenize", MODEL, PROMPT)["ids"]
        copy = self.folder / "copy.session"
        shutil.copy(session, copy)
        # (Reading the whole text again takes chunks where the session took single tokens: near ties may fall otherwise.)
        go_on = ["generate", MODEL, "-p", " and", "-n", "5", "--temp", "0", "--ignore-eos"]
        shown = e2e.mneme_json(*go_on, "--session", session)
        again = e2e.mneme_json(*go_on, "--session", copy, "--threads", "1")
        self.assertGreater(shown["prompt_tokens"], 0)
        self.assertLess(shown["prompt_tokens"], len(ids))
        self.assertEqual(shown["text"], again["text"])

    def test_quantize_takes_the_memory_along(self):
        out = self.folder / "out"
        out.mkdir()
        e2e.mneme_json("quantize", MODEL, out / "f32.gguf", "--type", "f32", "--with-tables", "--note", "general.license=other")
        self.assertEqual((out / "pocket.engram").read_bytes(), PACK.read_bytes())
        self.assertIn(b"other", (out / "f32.gguf").read_bytes()[:1 << 20])
        self.assertEqual(e2e.mneme_json("inspect", out / "f32.gguf")["config"]["tables"]["pocket"]["file"], "pocket.engram")
        exact = self.logits(out / "f32.gguf", "--activation", "float")
        self.assertLess(max(abs(a - b) for x, y in zip(exact, self.logits(MODEL, "--activation", "float")) for a, b in zip(x, y)), 1e-2)
        # Without the flag the output names the pack where it is; a folder carries it inside.
        e2e.mneme_json("quantize", MODEL, self.folder / "plain.gguf", "--type", "q8_0")
        named = e2e.mneme_json("inspect", self.folder / "plain.gguf")["config"]["tables"]["pocket"]["file"]
        self.assertEqual((self.folder / named).resolve(), PACK.resolve())
        e2e.mneme_json("quantize", MODEL, f"{self.folder}/hf/", "--type", "f32", "--with-tables")
        self.assertEqual((self.folder / "hf/pocket.engram").read_bytes(), PACK.read_bytes())
        self.assertEqual(self.logits(self.folder / "hf", "--activation", "float"), exact)

    def test_four_bits_cost_little(self):
        e2e.mneme_json("quantize", MODEL, self.folder / "q4.gguf", "--type", "q4_0", "--with-tables")
        self.assertLess((self.folder / "q4.gguf").stat().st_size, 0.8 * MODEL.stat().st_size)
        ratio = self.perplexity(self.folder / "q4.gguf")["ppl"] / self.perplexity()["ppl"]
        self.assertTrue(1 < ratio < 1.3, ratio)

    def test_notes_that_would_say_what_a_model_is_are_refused(self):
        for arguments, code, says in ((["x.gguf", "--note", "general.architecture=llama"], 1, "general.architecture"),
                                      (["x.gguf", "--note", "mneme.config={}"], 1, "mneme.config"),
                                      (["x.gguf", "--note", "licence"], 2, "KEY=TEXT"),
                                      (["x/", "--type", "f32", "--note", "general.license=mit"], 1, "general.license")):
            with self.subTest(arguments):
                ran = e2e.mneme("quantize", MODEL, f"{self.folder}/{arguments[0]}", *arguments[1:], "--quiet")
                self.assertEqual((ran.returncode, ran.stderr.count("\n")), (code, 1), ran.stderr)
                self.assertIn(says, ran.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_the_memory_is_whole_and_matters(self):
        shown = e2e.mneme_json("memory", "inspect", PACK)
        self.assertGreater(shown["rows"], 10_000)
        ran = e2e.mneme("memory", "verify", PACK)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        damaged = self.folder / "pocket.engram"
        data = bytearray(PACK.read_bytes())
        data[len(data) // 2] ^= 255
        damaged.write_bytes(data)
        self.assertEqual(e2e.mneme("memory", "verify", damaged).returncode, 1)

    def test_a_model_without_its_memory_file_says_what_is_missing(self):
        shutil.copy(MODEL, self.folder / "pocket.gguf")
        ran = e2e.mneme("generate", self.folder / "pocket.gguf", "-p", "a", "-n", "2", "--quiet")
        self.assertEqual((ran.returncode, ran.stdout, ran.stderr.count("\n")), (1, "", 1), ran.stderr)
        self.assertIn("pocket.engram", ran.stderr)

    def test_it_can_be_asked_to_recall_and_timed(self):
        scores = e2e.mneme_json("eval", "needle", MODEL, "--lengths", "256", "--samples", "1", "--depths", "0,50,100")
        self.assertEqual(scores["n"], 3)
        self.assertTrue(0 <= scores["score"] <= 1)


if __name__ == "__main__":
    e2e.main()
