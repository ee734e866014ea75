// `mneme tokenize` and `mneme detokenize`: text to token ids and back.
#include <fmt/format.h>

#include <memory>

#include "cli/input.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "cli/verb.h"

namespace mneme::cli::tokenize_verb {
namespace {

struct Options {
  CommonOptions common;
  ModelOptions model;
  std::string text, ids;
  bool raw = false;
  bool show = false;
  bool skip_special = false;
};

int tokenize(const Options& options) {
  const std::string text = text_argument(options.text);
  const auto model = load_model(options.model, options.common);
  const Tokenizer& tokenizer = model->tokenizer();
  const auto ids = tokenizer.encode(text, {.add_special = !options.raw, .parse_special = !options.raw});
  if (options.common.json) {
    Json tokens = Json::array();
    for (const TokenId id : ids) tokens.push_back(tokenizer.token(id));
    print_json({{"ids", ids}, {"tokens", tokens}});
  } else if (options.show) {
    std::vector<std::vector<std::string>> rows{{"id", "token"}};
    for (const TokenId id : ids) rows.push_back({std::to_string(id), one_line(tokenizer.token(id))});
    print(table(rows));
  } else {
    print(fmt::format("{}\n", fmt::join(ids, ",")));
  }
  return kDone;
}

int detokenize(const Options& options) {
  const auto ids = ids_argument(options.ids);
  const auto model = load_model(options.model, options.common);
  const Tokenizer& tokenizer = model->tokenizer();
  check_ids(ids, tokenizer.vocab_size());
  const std::string text = tokenizer.decode(ids, {.skip_special = options.skip_special});
  if (options.common.json) {
    print_json({{"text", text}});
  } else {
    print(text);  // exactly these bytes where another program reads them
    if (stdout_is_terminal()) print("\n");
  }
  return kDone;
}

const VerbRegistration tokenize_registration(
    {.name = "tokenize",
     .summary = "Turn text into token ids",
     .group = Group::text,
     .examples = {{"mneme tokenize MODEL 'Hello world'", "ids, separated by commas"},
                  {"mneme tokenize MODEL @book.txt --json", "a whole file, ids and tokens as JSON"},
                  {"mneme tokenize MODEL hello | mneme detokenize MODEL --ids @-", "there and back"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       add_model_options(app, options->model);
       app.add_option("text", options->text, "The text; @FILE, @- for standard input, @@... begins with @")
           ->type_name("TEXT")
           ->required();
       app.add_flag("--raw", options->raw,
                    "Add no begin-of-text token, and read spellings such as <|im_end|> as plain text");
       app.add_flag("--show", options->show, "Show the vocabulary's spelling beside each id");
       add_common_options(app, options->common);
       return [options] { return tokenize(*options); };
     }});

const VerbRegistration detokenize_registration(
    {.name = "detokenize",
     .summary = "Turn token ids into text",
     .group = Group::text,
     .examples = {{"mneme detokenize MODEL --ids 9906,1917", "their text"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       add_model_options(app, options->model);
       app.add_option("--ids", options->ids, "Token ids: 1,2,3 or @FILE or @-")
           ->type_name("LIST")
           ->required();
       app.add_flag("--skip-special", options->skip_special, "Leave control tokens out");
       add_common_options(app, options->common);
       return [options] { return detokenize(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::tokenize_verb
