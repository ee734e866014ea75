"""The command itself: help, versions, wrong usage, completion, environment, exit codes. Needs no model."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import e2e

VERBS = e2e.mneme("--help").stdout
NAMES = re.findall(r"^  ([a-z]+)  +\S", VERBS.split("Usage:")[1].split("`mneme VERB")[0], re.M)


class Help(unittest.TestCase):
    def test_every_verb_of_the_contract_is_there(self):
        for verb in ("run generate tokenize detokenize logits perplexity bench inspect quantize doctor pull list rm completion").split():
            self.assertIn(verb, NAMES)

    def test_version(self):
        ran = e2e.mneme("--version")
        self.assertEqual(ran.returncode, 0)
        self.assertRegex(ran.stdout, r"^mneme \d+\.\d+\.\d+\n$")

    def test_short_help_is_short_and_full_help_has_examples_defaults_and_environment(self):
        for verb in NAMES:
            with self.subTest(verb):
                short, full = e2e.mneme(verb, "-h"), e2e.mneme(verb, "--help")
                self.assertEqual((short.returncode, full.returncode, short.stderr, full.stderr), (0, 0, "", ""))
                self.assertIn(f"Usage: mneme {verb}", short.stdout)
                self.assertNotIn("MNEME_THREADS", short.stdout)
                self.assertLess(full.stdout.index("Examples:"), full.stdout.index("Usage:"))
                self.assertIn("[default 0, MNEME_THREADS]", " ".join(full.stdout.split()))
                self.assertEqual(e2e.mneme("help", verb).stdout, full.stdout)

    def test_every_line_fits_a_terminal(self):
        for verb in NAMES:
            for line in e2e.mneme(verb, "--help").stdout.splitlines():
                if not line.startswith("  mneme "):
                    self.assertLessEqual(len(line), 110, f"{verb}: {line}")


class Usage(unittest.TestCase):
    def fails(self, *arguments, code=2, says="", **options):
        ran = e2e.mneme(*arguments, **options)
        self.assertEqual(ran.returncode, code, f"{arguments}: {ran.stderr}")
        self.assertEqual(ran.stdout, "")
        self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
        self.assertIn(says, ran.stderr)
        return ran.stderr

    def test_no_verb_shows_the_help_and_is_wrong_usage(self):
        ran = e2e.mneme()
        self.assertEqual((ran.returncode, ran.stdout), (2, ""))
        self.assertIn("Usage: mneme VERB", ran.stderr)

    def test_typos_get_a_suggestion(self):
        self.fails("genrate", says="did you mean generate?")
        self.fails("tokenise", "x", says="did you mean tokenize?")
        self.fails("--verison", says="did you mean --version?")
        self.fails("doctor", "--quik", says="did you mean --quick?")
        self.fails("generate", "m", "--tmep", "0", says="did you mean --temp?")

    def test_wrong_options_and_values(self):
        self.fails("generate", says="model")
        self.fails("generate", "m", says="-p")
        self.fails("generate", "m", "-p", "x", "--ids", "1", says="--ids")
        self.fails("generate", "m", "-p", "x", "-n", "0")
        self.fails("generate", "m", "-p", "x", "-n", "many")
        self.fails("generate", "m", "-p", "x", "--kv", "q4", says="f16")
        self.fails("generate", "m", "-p", "x", "--load", "fast", says="mmap")
        self.fails("generate", "m", "-p", "x", "--activation", "none", says="spike")
        self.fails("generate", "m", "-p", "x", "--top-p", "2", says="top_p")
        self.fails("generate", "m", "-p", "x", "--temp", "-1", says="temperature")
        self.fails("generate", "m", "-p", "x", "--logit-bias", "5", says="ID:VALUE")
        self.fails("generate", "m", "-p", "x", "--threads", "-2")
        self.fails("generate", "m", "-p", "x", "--type", "q9", says="q9")
        self.fails("logits", "m", says="--ids")
        self.fails("logits", "m", "--ids", "", says="no token id")
        self.fails("logits", "m", "--ids", "1,x", says='item 2 is "x"')
        self.fails("logits", "m", "--ids", "1,-2", says="item 2")
        self.fails("logits", "m", "--ids", "9" * 30, says="whole numbers")
        self.fails("bench", "m", "--prompt", "x", says="--prompt")
        self.fails("bench", "m", "--prompt", "0", "--gen", "0", says="nothing to measure")
        self.fails("completion", "tcsh", says="bash")
        self.fails("completion", says="which shell")
        self.fails("list", "extra", says="extra")

    def test_a_bad_value_from_the_environment_is_traced(self):
        self.fails("list", env={"MNEME_THREADS": "lots"}, says="MNEME_THREADS")

    def test_memory_options(self):
        self.fails("generate", "m", "-p", "x", "--memory", "facts.engram:disk", says="mmap")
        self.fails("generate", "m", "-p", "x", "--memory-budget", "12 apples", says="512M")

    def test_ids_may_be_huge_and_come_from_stdin(self):
        ids = ",".join(str(i % 100) for i in range(300_000))
        self.fails("logits", "/no/such/model.gguf", "--ids", "@-", stdin=ids, code=1, says="no model")
        self.fails("logits", "/no/such/model.gguf", "--ids", "@-", stdin=ids + ",x", says="item 300001")
        self.fails("logits", "m", "--ids", "@-", stdin="", says="no token id")
        self.fails("logits", "m", "--ids", "@/no/such/file", code=1, says="/no/such/file")

    def test_a_full_disk_behind_stdout_is_a_failure(self):
        with open("/dev/full", "w") as full:
            ran = subprocess.run([e2e.MNEME, "completion", "bash"], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(ran.returncode, 1)
        self.assertIn("No space left", ran.stderr)

    def test_a_reader_that_stops_early_ends_the_program_quietly(self):
        ran = subprocess.run(f"for i in $(seq 200); do '{e2e.MNEME}' completion bash; done | head -n 1", shell=True,
                             capture_output=True, text=True, timeout=60)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))


class Completion(unittest.TestCase):
    def bash(self, *words, env=None):
        """What bash would offer for the last word."""
        quoted = " ".join(f"'{word}'" for word in words)
        script = (f"mneme() {{ '{e2e.MNEME}' \"$@\"; }}\n" + e2e.mneme("completion", "bash").stdout +
                  f"\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _mneme; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
        ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**os.environ, **(env or {})}, cwd="/")
        self.assertEqual(ran.stderr, "")
        return ran.stdout.split()

    def test_bash_offers_verbs_options_values_and_models(self):
        self.assertIn("generate", self.bash("mneme", "gen"))
        self.assertEqual(self.bash("mneme", "completion", "z"), ["zsh"])
        self.assertIn("--top-k", self.bash("mneme", "generate", "--to"))
        self.assertEqual(self.bash("mneme", "generate", "--kv", "f"), ["f16", "f32"])
        home = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, home)
        (home / "models").mkdir()
        (home / "models" / "small-model.gguf").write_bytes(b"GGUF")
        self.assertIn("small-model", self.bash("mneme", "generate", "sm", env={"MNEME_HOME": str(home)}))

    def test_scripts_name_every_verb_and_are_valid(self):
        for shell in ("bash", "zsh", "fish"):
            script = e2e.mneme("completion", shell).stdout
            for verb in NAMES:
                self.assertIn(verb, script, shell)
            if shutil.which(shell):
                subprocess.run([shell, "-n"], input=script, text=True, check=True)

    def script_of(self, shell):
        """The completion script of a shell that is installed, with `mneme` in the PATH of the returned environment."""
        if not shutil.which(shell):
            self.skipTest(f"{shell} is not installed (package {shell})")
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        (pathlib.Path(folder) / "mneme").symlink_to(e2e.MNEME)
        return folder, {**os.environ, "HOME": folder, "PATH": f"{folder}:{os.environ['PATH']}"}

    def test_fish_offers_verbs_values_and_options(self):
        _, environment = self.script_of("fish")
        for typed, offered in (("mneme detok", "detokenize"), ("mneme completion z", "zsh"), ("mneme bench --no-w", "--no-warmup")):
            ran = subprocess.run(["fish", "--no-config", "-c", f"mneme completion fish | source; complete -C '{typed}'"],
                                 capture_output=True, text=True, env=environment, check=True)
            self.assertEqual([line.split("\t")[0] for line in ran.stdout.splitlines()], [offered], ran.stderr)

    def test_zsh_loads_the_script_and_binds_it_to_the_command(self):
        folder, environment = self.script_of("zsh")
        ran = subprocess.run(["zsh", "-f", "-c", f"autoload -U compinit; compinit -u -d {folder}/dump; "
                              "source <(mneme completion zsh); print -r -- $_comps[mneme]; whence -w _mneme"],
                             capture_output=True, text=True, env=environment, check=True)
        self.assertEqual((ran.stdout, ran.stderr), ("_mneme\n_mneme: function\n", ""))

    def test_json(self):
        self.assertEqual(set(e2e.mneme_json("completion", "bash")), {"shell", "script"})


class Doctor(unittest.TestCase):
    def setUp(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="mneme doctor "))
        self.addCleanup(shutil.rmtree, self.home)
        self.env = {"MNEME_HOME": self.home}

    def test_measures_and_remembers(self):
        figures = e2e.mneme_json("doctor", "--quick", env=self.env)
        for key in ("isa", "threads", "ram_bytes", "read_gbps", "int8_gmacs", "random_read_iops"):
            self.assertIn(key, figures)
        self.assertGreater(figures["read_gbps"], 0.1)
        self.assertGreater(figures["int8_gmacs"], 0.1)
        self.assertGreater(figures["random_read_iops"], 1)
        self.assertEqual(figures["threads"], len(os.sched_getaffinity(0)))
        again = e2e.mneme_json("doctor", "--cached", env=self.env)
        self.assertTrue(again["cached"])
        self.assertEqual(again["read_gbps"], figures["read_gbps"])
        self.assertEqual(sorted(p.name for p in self.home.rglob("*")), ["cache", "machine.json"])

    def test_a_damaged_result_is_not_believed(self):
        (self.home / "cache").mkdir()
        (self.home / "cache" / "machine.json").write_text('{"read_gbps": 1e308')
        ran = e2e.mneme("doctor", "--cached", env=self.env)
        self.assertEqual(ran.returncode, 1)
        self.assertIn("run `mneme doctor`", ran.stderr)

    def test_an_unknown_instruction_set_is_refused(self):
        ran = e2e.mneme("doctor", "--quick", env={**self.env, "MNEME_ISA": "sse9"})
        self.assertEqual(ran.returncode, 1)
        self.assertIn("portable", ran.stderr)


if __name__ == "__main__":
    e2e.main()
