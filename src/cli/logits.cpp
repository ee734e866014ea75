// `mneme logits`: the model's scores for the next token, as they are. JSON numbers are the shortest that read
// back as the same float.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "cli/expert_processes.h"
#include "cli/input.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"

namespace mneme::cli::logits_verb {
namespace {

struct Options {
  CommonOptions common;
  ModelOptions model;
  SessionFlags session;
  std::string ids;
  bool all = false;
  int top = 10;
};

// JSON has no NaN and no infinity: they become null.
std::string json_row(std::span<const float> logits) {
  std::string row = "[";
  for (const float x : logits) {
    if (row.size() > 1) row += ',';
    if (std::isfinite(x)) {
      fmt::format_to(std::back_inserter(row), "{}", x);
    } else {
      row += "null";
    }
  }
  return row + "]";
}

/// Writes rows one after the other, so that memory stays bounded whatever the number of ids.
class Writer {
 public:
  Writer(const Options& options, const Model& model, const std::vector<TokenId>& ids)
      : options_(options), model_(model), ids_(ids) {}

  void row(uint64_t position, std::span<const float> logits) {
    if (!options_.common.json) return text_row(position, logits);
    if (!begun_) begin();
    print((begun_ ? "," : "") + json_row(logits));
    begun_ = true;
  }
  void end() {
    if (options_.common.json) print("]}\n");
    flush_output();
  }

 private:
  void begin() const {
    print("{\"ids\":[");
    for (size_t i = 0; i < ids_.size(); ++i) print((i == 0 ? "" : ",") + std::to_string(ids_[i]));
    print("],\"logits\":[");
  }
  void text_row(uint64_t position, std::span<const float> logits) {
    std::vector<uint32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0U);
    const auto top = std::min<size_t>(static_cast<size_t>(options_.top), order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(top), order.end(),
                      [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
    double sum = 0;
    const double most = logits[order[0]];
    for (const float x : logits) sum += std::exp(x - most);
    std::vector<std::vector<std::string>> rows{{"rank", "id", "logit", "probability", "token"}};
    for (size_t i = 0; i < top; ++i) {
      const double x = logits[order[i]];
      const auto id = static_cast<TokenId>(order[i]);
      const bool has_piece = model_.has_tokenizer() && order[i] < model_.tokenizer().vocab_size();
      rows.push_back({std::to_string(i + 1), std::to_string(id), fmt::format("{:.4f}", x),
                      fmt::format("{:.6f}", std::exp(x - most) / sum),
                      has_piece ? one_line(model_.tokenizer().token(id)) : ""});
    }
    print(fmt::format("after id {} at position {}:\n{}", ids_[position], position, table(rows)));
  }

  const Options& options_;
  const Model& model_;
  const std::vector<TokenId>& ids_;
  bool begun_ = false;
};

int lead(const Options& options) {
  const auto ids = ids_argument(options.ids);
  const auto model = load_model(options.model, options.common);
  check_ids(ids, model->config().vocab);
  const InterruptScope interrupt;
  note_long_context(*model, ids.size(), options.common);
  Session session(model, session_options(options.session, *model));
  Writer writer(options, *model, ids);
  const size_t vocab = model->config().vocab;
  AppendOptions append;
  append.all_logits = options.all;
  append.cancel = &interrupt.token();
  // Rows on a terminal show by themselves how far it is.
  const bool hidden = options.common.quiet || (options.all && stdout_is_terminal());
  Progress bar("Reading", Progress::Unit::tokens, !hidden);
  append.progress = [&bar](uint64_t done, uint64_t total) { bar.update(done, total); };
  if (options.all) {
    append.on_logits = [&](uint64_t first, uint64_t count, const float* logits) {
      for (uint64_t i = 0; i < count; ++i) writer.row(first + i, {logits + i * vocab, vocab});
    };
    session.append(ids, append);
  } else {
    writer.row(ids.size() - 1, session.append(ids, append));
  }
  writer.end();
  if (!options.common.quiet) print_process_traffic(options.model);
  return kDone;
}

int run(Options& options) {
  return with_processes(options.model, options.common, [&] { return lead(options); });
}

const VerbRegistration registration(
    {.name = "logits",
     .summary = "Scores of the next token after some ids",
     .group = Group::text,
     .examples = {{"mneme logits MODEL --ids 1,2,3", "the ten best next tokens"},
                  {"mneme logits MODEL --ids @ids.txt --all --json", "all scores after each id, as JSON"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       add_model_options(app, options->model);
       add_process_options(app, options->model);
       app.add_option("--ids", options->ids, "Token ids: 1,2,3 or @FILE or @-")
           ->type_name("LIST")
           ->required();
       app.add_flag("--all", options->all, "After each id, not only after the last");
       app.add_option("--top", options->top, "How many to show as text (JSON has all)")
           ->type_name("N")
           ->check(CLI::Range(1, 1000).description(""));
       add_session_options(app, options->session);
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::logits_verb
