// `mneme generate`: continues a text, without a chat template.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "cli/expert_processes.h"
#include "cli/input.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/sampling_flags.h"
#include "cli/session_file.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/sha256.h"
#include "mneme/engine.h"

namespace mneme::cli::generate_verb {
namespace {

struct Options {
  CommonOptions common;
  ModelOptions model;
  SessionFlags session;
  SamplingFlags sampling;
  std::string prompt, ids;
  bool has_prompt = false;
  uint32_t tokens = 256;
  std::vector<std::string> stop;
  bool raw = false;
  bool ignore_eos = false;
  KeepFlags keep;
};

std::vector<TokenId> prompt_ids(const Options& options, const Model& model, bool continues,
                                const CancelToken& cancel) {
  if (!options.ids.empty()) {
    auto ids = ids_argument(options.ids);
    check_ids(ids, model.config().vocab);
    return ids;
  }
  Progress bar("Tokenizing the prompt", Progress::Unit::bytes, !options.common.quiet);
  // A text that goes on from a session needs no second begin-of-text.
  auto ids = encode_argument(options.prompt, model.tokenizer(),
                             {.add_special = !options.raw && !continues, .parse_special = !options.raw},
                             [&](uint64_t done, uint64_t total) {
                               require(!cancel.cancelled(), ErrorCode::cancelled,
                                       "stopped before the prompt was tokenized");
                               bar.update(done, total);
                             });
  if (ids.empty()) throw UsageError("the prompt is empty, and this model begins with no token of its own");
  return ids;
}

// A prompt of which a --session file holds only a part, because its reading was interrupted. The same prompt
// goes on from there; another one is refused, since the file's text would end in the middle.
struct Unfinished {
  uint64_t start = 0;  // position before the prompt
  std::string prompt;  // SHA-256 of its ids

  std::string note() const { return Json{{"unfinished", {{"start", start}, {"prompt", prompt}}}}.dump(); }
  static std::optional<Unfinished> from(const std::string& note, const std::string& file) {
    if (note.empty()) return std::nullopt;
    const Json json = parse_json(note, "the note in " + file, 8);
    const auto found = json.find("unfinished");
    if (found == json.end()) return std::nullopt;
    try {
      return Unfinished{found->at("start").get<uint64_t>(), found->at("prompt").get<std::string>()};
    } catch (const Json::exception&) {
      fail(ErrorCode::corrupt, "{}: its note of an unfinished prompt makes no sense", file);
    }
  }
};

class Generator {
 public:
  Generator(const Options& options, std::shared_ptr<const Model> model)
      : options_(options),
        model_(std::move(model)),
        session_(model_, session_options(options.session, *model_)) {
    if (!options.keep.store.empty()) store_.emplace(open_store(options.keep));
  }

  int run() {
    const auto left =
        Unfinished::from(load_session(options_.keep, session_).value_or(""), options_.keep.file);
    GenerateRequest request = make_request();
    const bool continues = (left ? left->start : session_.position()) > 0;
    request.prompt = prompt_ids(options_, *model_, continues, interrupt_.token());
    const uint64_t total = request.prompt.size(), held = place_prompt(left, request.prompt);
    // The ids are held once here and once in the session: four bytes each, all that grows with a prompt.
    request.prompt.erase(request.prompt.begin(), request.prompt.begin() + static_cast<std::ptrdiff_t>(held));
    check_request(session_, request);
    note_long_context(*model_, session_.position() + request.prompt.size(), options_.common);
    const auto started = std::chrono::steady_clock::now();
    Progress bar("Reading the prompt", Progress::Unit::tokens, !options_.common.quiet);
    const auto unread = std::span(std::as_const(request.prompt)).first(request.prompt.size() - 1);
    const uint64_t read = read_ids(session_, unread, &interrupt_.token(), [&](uint64_t done, uint64_t) {
      bar.update(held + done, total);
      if (store_) keep_on_the_way(*store_, session_);
    });
    bar.clear();
    if (read < unread.size()) return interrupted(total, held + read);
    if (store_ && forgets(session_)) add_before_the_answer(*store_, session_);
    const double read_ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - started).count();
    request.prompt = std::vector<TokenId>{request.prompt.back()};
    GenerateResult result = generate(session_, request);
    result.prompt_tokens = total;
    if (result.generated_tokens > 0) result.ttft_ms += read_ms;
    report(result, held);
    save_session(options_.keep, session_, "");
    if (store_) store_->add(session_);
    return interrupt_.interrupted() ? kInterrupted : kDone;
  }

 private:
  /// Where the prompt begins in the session, and how many of its tokens need no reading.
  uint64_t place_prompt(const std::optional<Unfinished>& left, const std::vector<TokenId>& prompt) {
    pending_ = {session_.position(), sha256_hex(std::as_bytes(std::span(prompt)))};
    if (left) {
      require(left->prompt == pending_.prompt && left->start <= session_.position() &&
                  session_.position() - left->start < prompt.size(),
              ErrorCode::mismatch,
              "--session {} holds {} tokens of a prompt whose reading was interrupted; give the same prompt "
              "to go on, or remove the file",
              options_.keep.file, session_.position() - std::min(left->start, session_.position()));
      pending_.start = left->start;
      return session_.position() - left->start;
    }
    if (!store_ || session_.position() > 0) return 0;
    return store_->restore(session_, prompt);
  }

  int interrupted(uint64_t total, uint64_t read) {
    if (!options_.keep.file.empty() && !options_.keep.no_save && session_.position() > 0) {
      save_session(options_.keep, session_, pending_.note());
      fmt::print(stderr,
                 "{} of {} prompt tokens are read and kept in {}; the same command goes on from there\n",
                 read, total, options_.keep.file);
    }
    if (store_ && session_.position() > 0) store_->add(session_);
    fail(ErrorCode::cancelled, "stopped after {} of {} tokens", read, total);
  }

  GenerateRequest make_request() {
    GenerateRequest request;
    request.sampling = sampling_options(options_.sampling);
    request.max_tokens = options_.tokens;
    request.stop = options_.stop;
    request.ignore_eos = options_.ignore_eos;
    request.cancel = &interrupt_.token();
    if (!options_.common.json)
      request.on_text = [&](std::string_view text) {
        print(text);
        flush_output();
        if (!text.empty()) ends_line_ = text.back() == '\n';
        return true;
      };
    return request;
  }

  void report(const GenerateResult& result, uint64_t held) const {
    if (options_.common.json) {
      Json json{{"text", result.text},
                {"prompt_tokens", result.prompt_tokens},
                {"generated_tokens", result.generated_tokens},
                {"ttft_ms", result.ttft_ms},
                {"tokens_per_second", result.tokens_per_second},
                {"stop", to_string(result.stop)}};
      if (const Json traffic = process_traffic(options_.model); !traffic.is_null()) json["experts"] = traffic;
      add_experts(json, *model_);
      print_json(json);
    } else if (options_.tokens > 0 && (!ends_line_ || result.text.empty())) {
      print("\n");
    }
    flush_output();
    if (!options_.common.quiet)
      fmt::print(stderr,
                 "{} prompt tokens{}, first token after {:.0f} ms; {} tokens, {:.1f} tokens/s; stop: {}\n",
                 result.prompt_tokens, held > 0 ? fmt::format(", {} of them kept from before", held) : "",
                 result.ttft_ms, result.generated_tokens, result.tokens_per_second, to_string(result.stop));
    if (!options_.common.quiet) print_process_traffic(options_.model);
    if (!options_.common.quiet) print_experts(*model_);
  }

  const Options& options_;
  std::shared_ptr<const Model> model_;
  const InterruptScope interrupt_;
  Session session_;
  std::optional<SessionStore> store_;
  Unfinished pending_;
  bool ends_line_ = true;
};

int lead(const Options& options) {
  const auto model = load_model(options.model, options.common);
  if (!options.common.quiet) print_start(*model);
  return Generator(options, model).run();
}

int run(Options& options) {
  if (options.has_prompt == !options.ids.empty())
    throw UsageError("give either -p TEXT or --ids LIST (both accept @FILE and @-)");
  check_keep_options(options.keep);
  if (options.tokens == 0 && options.keep.file.empty() && options.keep.store.empty())
    throw UsageError(
        "-n 0 only reads the prompt, which is worth it with --session FILE or --session-store DIR");
  sampling_options(options.sampling);
  return with_processes(options.model, options.common, [&] { return lead(options); });
}

const VerbRegistration registration(
    {.name = "generate",
     .summary = "Continue a text, without a chat template",
     .group = Group::talk,
     .examples = {{"mneme generate MODEL -p 'Once upon a time' -n 64", "the next 64 tokens"},
                  {"mneme generate MODEL -p @story.txt -n 200 --temp 0 --json",
                   "the prompt from a file, always the likeliest token, the answer as JSON"},
                  {"mneme generate MODEL -p @book.txt -n 0 --session book.session",
                   "reads a book once and keeps the state"},
                  {"mneme generate MODEL -p 'In short,' --session book.session --no-save",
                   "goes on from it, as often as you like"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       add_model_options(app, options->model);
       add_process_options(app, options->model);
       CLI::Option* prompt = app.add_option("-p,--prompt", options->prompt,
                                            "The text; @FILE: from a file, @-: from standard input, "
                                            "@@...: text that begins with @")
                                 ->type_name("TEXT");
       app.add_option("--ids", options->ids, "Token ids instead of text: 1,2,3 or @FILE or @-")
           ->type_name("LIST");
       app.add_option("-n,--tokens", options->tokens,
                      "Generate at most this many tokens; 0: only read the prompt")
           ->type_name("N")
           ->check(CLI::Range(0, 1 << 30).description(""));
       app.add_option("--stop", options->stop, "Stop before this text; repeatable")
           ->type_name("TEXT")
           ->allow_extra_args(false);
       app.add_flag("--raw", options->raw,
                    "Add no begin-of-text token, and read spellings such as <|im_end|> as plain text");
       app.add_flag("--ignore-eos", options->ignore_eos, "Go on where the model would end");
       add_sampling_options(app, options->sampling);
       add_session_options(app, options->session);
       add_keep_options(app, options->keep);
       add_common_options(app, options->common);
       return [options, prompt] {
         options->has_prompt = prompt->count() > 0;
         return run(*options);
       };
     }});

}  // namespace
}  // namespace mneme::cli::generate_verb
