// `mneme eval needle | multikey | multivalue | multiquery | variables`: what a model recalls of a long text.
// src/eval/recall.h says what is counted.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>
#include <optional>

#include "cli/input.h"
#include "cli/options.h"
#include "cli/output_check.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/file.h"
#include "eval/heat_map.h"
#include "eval/recall.h"

namespace mneme::cli::eval_recall_verb {
namespace {

struct Options {
  CommonOptions common;
  ModelOptions model;
  SessionFlags session;
  RecallTask task = RecallTask::needle;
  std::string lengths, depths = "0,25,50,75,100", text, plot, answers;
  uint32_t samples = 3, items = 4, distractors = 0, answer_tokens = 0;
  uint64_t seed = 0;
  bool raw = false;
};

std::vector<double> depth_list(const std::string& value) {
  std::vector<double> depths;
  for (std::string_view rest = value;;) {
    const size_t comma = rest.find(',');
    const std::string_view word = rest.substr(0, comma);
    double percent = 0;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), percent);
    if (error != std::errc() || stop != word.data() + word.size() || !(percent >= 0 && percent <= 100))
      throw UsageError(fmt::format("--depths: \"{}\" is no percentage from 0 to 100 (several: 0,50,100)",
                                   word.substr(0, 40)));
    depths.push_back(percent / 100);
    if (comma == std::string_view::npos) return depths;
    rest.remove_prefix(comma + 1);
  }
}

// Powers of two up to what the model was made for, but no more than a few minutes' worth.
std::vector<uint64_t> default_lengths(uint32_t context) {
  std::vector<uint64_t> lengths;
  for (const uint64_t length : {1024, 2048, 4096})
    if (context == 0 || length <= context) lengths.push_back(length);
  if (lengths.empty()) lengths.push_back(context);
  return lengths;
}

std::string short_number(uint64_t n) {
  if (n >= 1048576 && n % 1048576 == 0) return fmt::format("{}M", n / 1048576);
  if (n >= 1024 && n % 1024 == 0) return fmt::format("{}k", n / 1024);
  return std::to_string(n);
}

std::string percent(double part) {
  return fmt::format("{:.4g}%", 100 * part);
}

HeatMap heat_map(const Options& options, const Model& model, const RecallOptions& request,
                 const RecallResult& result) {
  HeatMap map;
  const std::string name = model_name(model.config(), model.path());
  map.title = fmt::format("{}: {:.1f} %", to_string(options.task), 100 * result.score);
  map.subtitle = fmt::format(
      "{}, {} questions, seed {}, {}", name, result.n, options.seed,
      result.complete ? fmt::format("stderr {:.1f} %", 100 * result.standard_error) : "interrupted");
  map.column_name = "length in tokens";
  map.row_name = "depth";
  for (const uint64_t length : request.lengths) map.columns.push_back(short_number(length));
  const size_t columns = request.lengths.size(), rows = request.depths.size();
  for (size_t row = 0; row < rows; ++row) {
    map.rows.push_back(percent(request.depths[row]));
    auto& scores = map.scores.emplace_back();
    for (size_t column = 0; column < columns; ++column)
      scores.push_back(result.cells[column * rows + row].score);
  }
  return map;
}

Json cells_json(const RecallResult& result) {
  Json cells = Json::array();
  for (const RecallCell& cell : result.cells)
    cells.push_back({{"length", cell.length},
                     {"depth", cell.depth},
                     {"score", std::isnan(cell.score) ? Json() : Json(cell.score)},
                     {"items", cell.items}});
  return cells;
}

std::string cells_table(const RecallOptions& request, const RecallResult& result) {
  std::vector<std::vector<std::string>> rows{{"depth"}};
  for (const uint64_t length : request.lengths) rows[0].push_back(short_number(length));
  for (size_t depth = 0; depth < request.depths.size(); ++depth) {
    auto& row = rows.emplace_back(std::vector<std::string>{percent(request.depths[depth])});
    for (size_t length = 0; length < request.lengths.size(); ++length) {
      const double score = result.cells[length * request.depths.size() + depth].score;
      row.push_back(std::isnan(score) ? "-" : fmt::format("{:.0f}%", 100 * score));
    }
  }
  return table(rows);
}

void report(const Options& options, const RecallOptions& request, const RecallResult& result) {
  if (options.common.json)
    return print_json({{"task", to_string(options.task)},
                       {"score", result.score},
                       {"n", result.n},
                       {"stderr", result.standard_error},
                       {"complete", result.complete},
                       {"seed", options.seed},
                       {"prompt_tokens", result.prompt_tokens},
                       {"tokens_read", result.tokens_read},
                       {"generated_tokens", result.generated_tokens},
                       {"seconds", result.seconds},
                       {"cells", cells_json(result)}});
  print(cells_table(request, result));
  print(fmt::format("{}: score {:.3f} ± {:.3f}, {} questions{}\n", to_string(options.task), result.score,
                    result.standard_error, result.n, result.complete ? "" : " (interrupted)"));
  if (!options.common.quiet)
    fmt::print(stderr, "{} prompt tokens, {} of them read, {} generated, in {}\n", result.prompt_tokens,
               result.tokens_read, result.generated_tokens, human_seconds(result.seconds));
}

/// One JSON object a line for each answer.
class AnswerFile {
 public:
  explicit AnswerFile(const std::string& path) : file_(path) {}
  void add(const RecallOptions::Answer& answer) {
    const Json line = {{"length", answer.length},     {"sample", answer.sample},
                       {"depths", answer.depths},     {"question", answer.question},
                       {"expected", answer.expected}, {"answer", answer.answer},
                       {"score", answer.score}};
    file_.write(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  }
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
};

int run(const Options& options) {
  RecallOptions request;
  request.task = options.task;
  if (!options.lengths.empty())
    request.lengths = number_list(options.lengths, "--lengths", 64, uint64_t{1} << 31);
  request.depths = depth_list(options.depths);
  request.samples = options.samples;
  request.items = options.items;
  request.distractors = options.distractors;
  request.answer_tokens = options.answer_tokens;
  request.seed = options.seed;
  request.text = options.text;
  request.raw = options.raw;
  check_picture_file("--plot", options.plot);
  check_output_file(options.answers);

  const auto model = load_model(options.model, options.common);
  if (!options.common.quiet) print_start(*model);
  const uint32_t context = model->config().context;
  if (options.lengths.empty()) request.lengths = default_lengths(context);
  const uint64_t longest = *std::max_element(request.lengths.begin(), request.lengths.end());
  note_long_context(*model, longest, options.common);
  const InterruptScope interrupt;
  request.cancel = &interrupt.token();
  Progress bar("Evaluating", Progress::Unit::tokens, !options.common.quiet);
  request.progress = [&bar](uint64_t done, uint64_t total) { bar.update(done, total); };
  std::optional<AnswerFile> answers;
  if (!options.answers.empty()) {
    answers.emplace(options.answers);
    request.on_answer = [&answers](const RecallOptions::Answer& answer) { answers->add(answer); };
  }
  const RecallResult result = recall(model, request, session_options(options.session));
  bar.clear();
  if (answers) answers->commit();
  if (!options.plot.empty()) save_heat_map(heat_map(options, *model, request, result), options.plot);
  report(options, request, result);
  flush_output();
  return result.complete ? kDone : kInterrupted;
}

Action set_up(CLI::App& app, RecallTask task) {
  auto options = std::make_shared<Options>();
  options->task = task;
  add_model_options(app, options->model);
  app.add_option(
         "--lengths", options->lengths,
         "Tokens that a question may take with its text and answer, e.g. 1024,8192; default: 1024, 2048, "
         "4096 as far as the model was made for them")
      ->type_name("LIST");
  app.add_option("--depths", options->depths, "Where in the text things are hidden, in percent")
      ->type_name("LIST");
  app.add_option("--samples", options->samples, "Texts for each length (needle: and depth)")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000).description(""));
  if (task != RecallTask::needle)
    app.add_option("--items", options->items,
                   task == RecallTask::multivalue  ? "Numbers of the one key"
                   : task == RecallTask::variables ? "Variables of the chain"
                                                   : "Keys that are asked for")
        ->type_name("N")
        ->check(CLI::Range(1, 1000).description(""));
  app.add_option("--distractors", options->distractors,
                 task == RecallTask::variables ? "Further chains that nobody asks for"
                                               : "Further keys that nobody asks for")
      ->type_name("N")
      ->check(CLI::Range(0, 1000).description(""));
  app.add_option("--answer-tokens", options->answer_tokens,
                 "Most tokens of an answer; 0: 24 and 12 for each item")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 20).description(""));
  app.add_option("--seed", options->seed, "Of texts, keys and numbers")->type_name("N");
  app.add_option("--text", options->text, "Hide things in this text instead of sentences of our own")
      ->type_name("FILE");
  app.add_flag("--raw", options->raw, "Without the model's chat template");
  app.add_option("--plot", options->plot, "Write a heat map, length by depth, to FILE.svg or FILE.png")
      ->type_name("FILE");
  app.add_option("--answers", options->answers, "Write questions and answers as JSON lines")
      ->type_name("FILE");
  add_session_options(app, options->session, false);
  add_common_options(app, options->common);
  return [options] { return run(*options); };
}

VerbRegistration register_task(RecallTask task, std::string summary, std::vector<Example> examples) {
  return VerbRegistration({.name = std::string(to_string(task)),
                           .summary = std::move(summary),
                           .group = Group::measure,
                           .examples = std::move(examples),
                           .parent = "eval",
                           .setup = [task](CLI::App& app) { return set_up(app, task); }});
}

const VerbRegistration needle = register_task(
    RecallTask::needle, "Recall one number hidden in a long text",
    {{"mneme eval needle MODEL", "lengths up to 4096, five depths, three texts each"},
     {"mneme eval needle MODEL --lengths 8192,32768 --depths 0,50,100 --plot map.png", "with a heat map"},
     {"mneme eval needle MODEL --text book.txt --seed 7 --json", "hidden in a book of one's own"}});
const VerbRegistration multikey = register_task(
    RecallTask::multikey, "Recall one of several numbers by its key",
    {{"mneme eval multikey MODEL --items 8 --distractors 32", "eight questions about each text"}});
const VerbRegistration multivalue =
    register_task(RecallTask::multivalue, "Recall all numbers of one key",
                  {{"mneme eval multivalue MODEL --items 4 --lengths 4096", "four numbers in 4096 tokens"}});
const VerbRegistration multiquery =
    register_task(RecallTask::multiquery, "Recall the numbers of several keys in one answer",
                  {{"mneme eval multiquery MODEL --answers answers.jsonl", "and keep what was answered"}});
const VerbRegistration variables = register_task(
    RecallTask::variables, "Trace assignments from variable to variable",
    {{"mneme eval variables MODEL --items 5 --distractors 1", "a chain of five, and one to ignore"}});

}  // namespace
}  // namespace mneme::cli::eval_recall_verb
