// `mneme tokenizer train`: a byte-level BPE tokenizer over texts, JSON lines and folders, as the two files
// that model folders have.
#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "convert/tokenizer_to_json.h"
#include "core/fail.h"
#include "core/file.h"
#include "text/bpe_trainer.h"
#include "text/documents.h"

namespace mneme::cli::tokenizer_train_verb {
namespace {

constexpr uint64_t kBatchBytes = uint64_t{8} << 20;  // of text that is counted at once

struct Options {
  CommonOptions common;
  std::vector<std::string> inputs;
  std::string output;
  BpeTrainOptions training;
  DocumentOptions documents;
  bool force = false;
};

struct Totals {
  uint64_t documents = 0, bytes = 0, invalid = 0, binary = 0;
};

Totals count_words(const Options& options, BpeTrainer& trainer, const InterruptScope& interrupt) {
  const auto files = list_text_files(options.inputs);
  uint64_t total = 0, before = 0, gathered = 0;
  for (const TextFile& file : files) total += file.bytes;
  Progress bar("Reading", Progress::Unit::bytes, !options.common.quiet);
  Totals out;
  std::vector<std::string> batch;
  std::string document;
  const auto count = [&](uint64_t done) {
    require(!interrupt.interrupted(), ErrorCode::cancelled, "interrupted");
    trainer.add(batch);
    batch.clear();
    gathered = 0;
    bar.update(done, total);
  };
  for (const TextFile& file : files) {
    DocumentReader reader(file, options.documents);
    while (reader.next(document)) {
      ++out.documents;
      out.bytes += document.size();
      gathered += document.size();
      batch.push_back(std::move(document));
      if (gathered >= kBatchBytes) count(before + reader.position());
    }
    before += file.bytes;
    out.invalid += reader.invalid_bytes();
    out.binary += reader.skipped() ? 1 : 0;
  }
  count(total);
  return out;
}

// What the `transformers` package wants beside tokenizer.json.
std::string tokenizer_config(const std::vector<std::string>& special) {
  OrderedJson json = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                      {"clean_up_tokenization_spaces", false}};
  if (!special.empty()) json["eos_token"] = special.front();
  return json.dump(2) + "\n";
}

void write_file(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

int run(Options& options) {
  const auto start = std::chrono::steady_clock::now();
  const fs::path folder(options.output), target = folder / "tokenizer.json";
  require(options.force || !fs::exists(target), ErrorCode::invalid_argument,
          "{} is there already; name another folder, or overwrite it with --force", target.string());
  options.training.threads = options.common.threads > 0 ? options.common.threads : available_cores();
  if (options.training.special.size() == 1 && options.training.special[0].empty())
    options.training.special.clear();

  const InterruptScope interrupt;
  Progress merging("Merging", Progress::Unit::items, !options.common.quiet);
  options.training.progress = [&](uint64_t done, uint64_t total) {
    merging.update(done, total);
    return !interrupt.interrupted();
  };
  BpeTrainer trainer(options.training);
  Totals totals;
  TokenizerSpec spec;
  uint64_t distinct = 0;
  try {
    totals = count_words(options, trainer, interrupt);
    distinct = trainer.distinct_words();
    spec = trainer.finish();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::cancelled) throw;
    return kInterrupted;
  }
  merging.clear();
  std::error_code error;
  fs::create_directories(folder, error);
  require(!error, ErrorCode::io, "cannot make the folder {}: {}", folder.string(), error.message());
  write_file(folder / "tokenizer_config.json", tokenizer_config(options.training.special));
  write_file(target, tokenizer_json(spec));

  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (spec.vocab.size() < options.training.vocab && !options.common.quiet)
    fmt::print(stderr, "mneme: the text gives only {} pieces of the {} asked for; more text gives more\n",
               spec.vocab.size(), options.training.vocab);
  if (totals.invalid > 0 && !options.common.quiet)
    fmt::print(stderr, "mneme: {} bytes were not UTF-8 and count as U+FFFD\n", totals.invalid);
  if (options.common.json)
    print_json({{"vocab", spec.vocab.size()},
                {"seconds", seconds},
                {"merges", spec.merges.size()},
                {"documents", totals.documents},
                {"text_bytes", totals.bytes},
                {"invalid_bytes", totals.invalid},
                {"binary_files", totals.binary},
                {"words", trainer.words()},
                {"distinct_words", distinct},
                {"long_words", trainer.long_words()},
                {"forgotten_words", trainer.forgotten_words()},
                {"tokenizer", target.string()}});
  else
    print(fmt::format("{}: {} pieces from {} of text ({} words, {} distinct) in {:.1f} s\n", target.string(),
                      spec.vocab.size(), human_bytes(static_cast<double>(totals.bytes)), trainer.words(),
                      distinct, seconds));
  return kDone;
}

const VerbRegistration registration(
    {.name = "train",
     .summary = "Learn a byte-level BPE tokenizer from texts",
     .group = Group::models,
     .examples = {{"mneme tokenizer train corpus/ -o tokenizer --vocab 8192", "a folder of texts"},
                  {"mneme tokenizer train a.jsonl b.txt -o tokenizer --field body --pattern llama3",
                   "JSON lines whose text stands under \"body\"; another way to cut words"}},
     .parent = "tokenizer",
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("files", options->inputs, "Texts, JSON lines (*.jsonl) or folders")
           ->required()
           ->type_name("FILE");
       app.add_option("-o,--output", options->output, "Folder for tokenizer.json and tokenizer_config.json")
           ->required()
           ->type_name("DIR");
       app.add_option("--vocab", options->training.vocab, "Pieces, with special tokens and the 256 bytes")
           ->type_name("N");
       app.add_option("--pattern", options->training.pattern, "How text is cut into words")
           ->check(CLI::IsMember(bpe_pattern_names()))
           ->type_name("NAME");
       app.add_option("--special", options->training.special,
                      "Special tokens; the first ends documents; \"\": none")
           ->delimiter(',')
           ->type_name("TOKEN");
       app.add_option("--field", options->documents.field, "Member of JSON lines that holds the text")
           ->type_name("NAME");
       app.add_option("--least-count", options->training.least_count, "Rarer pairs are not merged")
           ->type_name("N");
       app.add_option("--max-words", options->training.max_words,
                      "Distinct words that are held in memory; beyond, the rarest are forgotten")
           ->check(CLI::Range(uint64_t{1000}, uint64_t{1} << 40))
           ->type_name("N");
       app.add_flag("--skip-binary", options->documents.skip_binary, "Leave out files that are not text");
       app.add_flag("--force", options->force, "Overwrite an existing tokenizer.json");
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::tokenizer_train_verb
