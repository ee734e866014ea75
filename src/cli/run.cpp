// `mneme run`: talk with a model. On a terminal a conversation; with -p, or when text is piped in, one
// answer.
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <optional>

#include "cli/chat.h"
#include "cli/chat_repl.h"
#include "cli/input.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/sampling_flags.h"
#include "cli/session_file.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/paths.h"
#include "mneme/error.h"

namespace mneme::cli::run_verb {
namespace {

struct Options {
  CommonOptions common;
  ModelOptions model;
  std::string model_option;
  SessionFlags session;
  SamplingFlags sampling;
  std::string prompt;
  bool has_prompt = false;
  std::string system;
  uint32_t tokens = 1024;
  std::vector<std::string> stop;
  bool no_think = false;
  KeepFlags keep;
};

/// The prompt of a single answer; nothing when there is a person to talk with.
std::optional<std::string> single_prompt(const Options& options) {
  std::string text;
  if (options.has_prompt) {
    text = text_argument(options.prompt);
  } else if (stdin_is_terminal()) {
    return std::nullopt;
  } else {
    text = read_stdin();
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  }
  if (text.empty())
    throw UsageError(options.has_prompt ? "the prompt is empty"
                                        : "standard input is empty; give a prompt there or with -p TEXT");
  return text;
}

/// Generates one answer; streams it to stdout unless it will be printed as JSON.
class Answers {
 public:
  Answers(const Options& options, Chat& chat, InterruptScope& interrupt, SessionStore* store)
      : options_(options), chat_(chat), interrupt_(interrupt), store_(store) {}

  const Chat::Answer& give(const std::string& text) {
    Progress bar("Reading the prompt", Progress::Unit::tokens, !options_.common.quiet);
    bool ends_line = false;
    const auto on_text = [&](std::string_view part) {
      if (options_.common.json) return true;
      print(part);
      flush_output();
      if (!part.empty()) ends_line = part.back() == '\n';
      return true;
    };
    const auto on_prefill = [&](uint64_t done, uint64_t total) {
      bar.update(done, total);
      if (done >= total) bar.clear();
    };
    last_ = chat_.ask(text, &interrupt_.token(), on_text, on_prefill);
    bar.clear();
    if (!options_.common.json && !ends_line && (stdout_is_terminal() || !unread())) print("\n");
    flush_output();
    keep();
    return *last_;
  }

  /// Whether Ctrl-C came before the prompt was read to its end, so that there is no answer.
  bool unread() const {
    return last_->result.stop == StopReason::cancelled && last_->result.generated_tokens == 0;
  }

  /// Saves the state to the --session file and the store. The answer is out by now, so a full disk costs
  /// nothing but the next start; the error still ends a single answer with exit code 1.
  void keep() {
    if (last_->prompt_tokens == 0) return;
    save_session(options_.keep, chat_.session(), chat_.conversation().to_text(chat_.model().path()));
    if (store_ != nullptr && chat_.session().position() > 0) store_->add(chat_.session());
  }

  const Model& model() const { return chat_.model(); }
  std::string stats() const {
    if (!last_) return "no answer yet\n";
    if (unread()) return interrupted();
    const GenerateResult& result = last_->result;
    return fmt::format(
        "{} prompt tokens, {} of them kept from earlier turns; first token after {:.0f} ms; {} tokens at "
        "{:.1f} tokens/s; "
        "stop: {}\n",
        last_->prompt_tokens, last_->reused_tokens, result.ttft_ms, result.generated_tokens,
        result.tokens_per_second, to_string(result.stop));
  }

 private:
  std::string interrupted() const {
    const bool kept = !options_.keep.file.empty() && !options_.keep.no_save && chat_.session().position() > 0;
    return fmt::format(
        "interrupted: {} of {} prompt tokens are read{}\n", chat_.session().position(), last_->prompt_tokens,
        kept ? fmt::format(" and kept in {}; the same prompt goes on from there", options_.keep.file) : "");
  }

  const Options& options_;
  Chat& chat_;
  InterruptScope& interrupt_;
  SessionStore* store_;
  std::optional<Chat::Answer> last_;
};

int answer_once(const Options& options, Answers& answers, const InterruptScope& interrupt,
                const std::string& prompt) {
  const Chat::Answer& answer = answers.give(prompt);
  const GenerateResult& result = answer.result;
  if (options.common.json) {
    Json json{{"text", result.text},
              {"prompt_tokens", answer.prompt_tokens},
              {"generated_tokens", result.generated_tokens},
              {"ttft_ms", result.ttft_ms},
              {"tokens_per_second", result.tokens_per_second},
              {"stop", to_string(result.stop)}};
    add_experts(json, answers.model());
    print_json(json);
  } else if (!options.common.quiet) {
    fmt::print(stderr, "{}", answers.stats());
    print_experts(answers.model());
  }
  return interrupt.interrupted() ? kInterrupted : kDone;
}

int talk(const Options& options, Chat& chat, Answers& answers, InterruptScope& interrupt) {
  LineEditor editor(state_folder() / "chat_history", interrupt);
  if (!options.common.quiet) fmt::print(stderr, "/help lists the commands, /quit leaves\n");
  const auto answer = [&](const std::string& text) {
    try {
      answers.give(text);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::cancelled) throw;
      print("\n");
    }
    interrupt.reset();
  };
  return run_chat_repl({.lines = editor,
                        .conversation = chat.conversation(),
                        .model = chat.model().path(),
                        .answer = answer,
                        .stats = [&] { return answers.stats(); },
                        .say = [](const std::string& text) { fmt::print(stderr, "{}", text); }});
}

/// Takes up the conversation of the --session file.
void resume(const Options& options, Chat& chat) {
  const auto note = load_session(options.keep, chat.session());
  if (note && !note->empty())
    chat.conversation() = Conversation::from_text(*note, "the conversation in " + options.keep.file);
  if (!note || !options.system.empty()) chat.conversation().set_system(text_argument(options.system));
  if (note && !options.common.quiet)
    fmt::print(stderr, "{}: {} tokens and {} messages are taken up\n", options.keep.file,
               chat.session().position(), chat.conversation().messages().size());
}

int run(Options& options) {
  if (!options.model_option.empty()) {
    if (!options.model.model.empty()) throw UsageError("the model is given twice, as MODEL and with --model");
    options.model.model = options.model_option;
  }
  ChatOptions chat_options;
  chat_options.sampling = sampling_options(options.sampling);
  chat_options.max_tokens = options.tokens;
  chat_options.stop = options.stop;
  if (options.no_think) chat_options.variables["enable_thinking"] = false;
  check_keep_options(options.keep);
  const std::optional<std::string> prompt = single_prompt(options);
  if (!prompt && options.common.json)
    throw UsageError("--json needs a prompt: -p TEXT, or text on standard input");

  std::optional<SessionStore> store;
  if (!options.keep.store.empty()) chat_options.store = &store.emplace(open_store(options.keep));
  const auto model = load_model(options.model, options.common);
  chat_options.session = session_options(options.session, *model);
  Chat chat(model, chat_options);
  if (!options.common.quiet) print_start(*model);
  if (!chat.has_template())
    fmt::print(stderr,
               "this model has no chat template: it continues the text as it is, and may not answer\n");
  resume(options, chat);
  InterruptScope interrupt;
  Answers answers(options, chat, interrupt, chat_options.store);
  return prompt ? answer_once(options, answers, interrupt, *prompt) : talk(options, chat, answers, interrupt);
}

const VerbRegistration registration(
    {.name = "run",
     .summary = "Talk with a model; with -p, one answer",
     .group = Group::talk,
     .examples = {{"mneme run", "a conversation with the default model"},
                  {"mneme run -p 'Why is the sky blue?'", "one answer"},
                  {"mneme run --model FILE.gguf < question.txt",
                   "the question from a file, the answer on standard output"},
                  {"mneme run --session talk.session",
                   "a conversation that goes on where it was left, without reading it again"},
                  {"mneme run -p @question.txt --json", "text, token counts and speed as JSON"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("MODEL", options->model.model,
                      "A GGUF file, a Hugging Face folder, or a name of `mneme list`; default: the model "
                      "that run.sh fetches")
           ->type_name("");
       app.add_option("--model", options->model_option, "The same, as an option")->type_name("MODEL");
       CLI::Option* prompt =
           app.add_option("-p,--prompt", options->prompt,
                          "Answer this and exit; @FILE: from a file, @-: from standard input, "
                          "@@...: text that begins with @")
               ->type_name("TEXT");
       app.add_option("--system", options->system, "System message (TEXT, @FILE or @-)")->type_name("TEXT");
       app.add_option("-n,--tokens", options->tokens, "At most this many tokens an answer")
           ->type_name("N")
           ->check(CLI::Range(1, 1 << 30).description(""));
       app.add_option("--stop", options->stop, "Stop before this text; repeatable")
           ->type_name("TEXT")
           ->allow_extra_args(false);
       app.add_flag("--no-think", options->no_think,
                    "Ask a model that can think first (Qwen 3) to answer at once");
       add_sampling_options(app, options->sampling);
       add_model_options(app, options->model, false);
       add_session_options(app, options->session);
       add_keep_options(app, options->keep);
       add_common_options(app, options->common);
       return [options, prompt] {
         options->has_prompt = prompt->count() > 0;
         return run(*options);
       };
     }});

}  // namespace
}  // namespace mneme::cli::run_verb
