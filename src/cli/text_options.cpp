#include "cli/text_options.h"

#include <algorithm>

#include "cli/input.h"
#include "cli/verb.h"
#include "eval/perplexity.h"

namespace mneme::cli {

void add_text_options(CLI::App& app, TextOptions& options) {
  app.add_option("-p,--prompt", options.prompt, "The text; @FILE or @- reads it")->type_name("TEXT");
  app.add_option("-f,--file", options.file, "A text file instead")->type_name("FILE");
  app.add_option("--ids", options.ids, "Token ids instead, e.g. 1,2,3")->type_name("LIST");
  app.add_option("--tokens", options.tokens, "Only the first N tokens; 0: all")->type_name("N");
  app.add_option("--ctx", options.window,
                 "Tokens of a window; each is read by itself. 0: 512, or the model's context if that is less")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 24).description(""));
}

void check_text_options(const TextOptions& options) {
  const int given = !options.prompt.empty() + !options.file.empty() + !options.ids.empty();
  if (given == 0)
    throw UsageError("what shall the model read? -p TEXT, -f FILE or --ids LIST (the text may not be empty)");
  if (given > 1) throw UsageError("give one of -p TEXT, -f FILE and --ids LIST");
}

std::vector<TokenId> text_ids(const TextOptions& options, const Model& model) {
  std::vector<TokenId> ids;
  if (!options.ids.empty()) {
    ids = ids_argument(options.ids);
    check_ids(ids, model.config().vocab);
  } else {
    const std::string text = text_argument(options.file.empty() ? options.prompt : "@" + options.file);
    if (text.empty()) throw UsageError("the text is empty: there is nothing to read");
    ids = model.tokenizer().encode(text, {.add_special = true, .parse_special = false});
  }
  if (options.tokens > 0 && ids.size() > options.tokens) ids.resize(options.tokens);
  return ids;
}

uint32_t window_of(const TextOptions& options, const Model& model) {
  return options.window > 0 ? options.window : std::min(512u, model.config().context);
}

TokenId opening_token(const Model& model) {
  return model.has_tokenizer() ? opening_bos(model.tokenizer()) : -1;
}

}  // namespace mneme::cli
