// `mneme quantize`: a model written again with another number format, as GGUF or as a Hugging Face folder.
#include "convert/quantize.h"

#include <fmt/format.h>

#include <memory>

#include "cli/options.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/store.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "simd/blocks.h"

namespace mneme::cli::quantize_verb {
namespace {

struct Options {
  CommonOptions common;
  std::string in, out;
  std::string format = "auto";
  std::vector<std::string> notes;
  QuantizeOptions quantize;
};

ModelFormat parse_format(const std::string& name) {
  if (name == "auto") return ModelFormat::automatic;
  if (name == "gguf") return ModelFormat::gguf;
  if (name == "hf") return ModelFormat::hugging_face;
  throw UsageError(fmt::format("--format is \"{}\"; it must be auto, gguf or hf", name));
}

/// KEY=TEXT
std::pair<std::string, std::string> parse_note(const std::string& note) {
  const size_t equals = note.find('=');
  if (equals == std::string::npos || equals == 0)
    throw UsageError(fmt::format("--note is \"{}\"; it must be KEY=TEXT, such as general.license=mit", note));
  return {note.substr(0, equals), note.substr(equals + 1)};
}

int run(Options& options) {
  const auto type = dtype_from_name(options.quantize.type);
  if (!type || !can_quantize(*type))
    throw UsageError(fmt::format("--type is \"{}\"; it must be q8_0, q4_0, q4_1, f16, bf16 or f32",
                                 options.quantize.type));
  options.quantize.format = parse_format(options.format);
  for (const std::string& note : options.notes) options.quantize.notes.push_back(parse_note(note));
  const InterruptScope interrupt;
  Progress progress("Quantizing", Progress::Unit::bytes, !options.common.quiet);
  options.quantize.threads = options.common.threads;
  options.quantize.progress = [&](uint64_t done, uint64_t total) {
    require(!interrupt.interrupted(), ErrorCode::cancelled, "interrupted; nothing was written");
    progress.update(done, total);
  };
  QuantizeResult result;
  try {
    result = quantize_model(resolve_model(options.in), options.out, options.quantize);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::cancelled) return kInterrupted;
    throw;
  }
  progress.clear();
  if (options.common.json)
    print_json({{"bytes_in", result.bytes_in}, {"bytes_out", result.bytes_out}});
  else
    print(fmt::format("{}: {} -> {}\n", options.out, human_bytes(static_cast<double>(result.bytes_in)),
                      human_bytes(static_cast<double>(result.bytes_out))));
  return kDone;
}

const VerbRegistration registration(
    {.name = "quantize",
     .summary = "Write a model with other weights: GGUF or a Hugging Face folder",
     .group = Group::models,
     .examples = {{"mneme quantize model.gguf small.gguf --type q4_0", "4 bits a weight"},
                  {"mneme quantize hf-folder/ model.gguf --type q8_0", "from a Hugging Face folder"},
                  {"mneme quantize model.gguf folder/ --type bf16", "to a Hugging Face folder"},
                  {"mneme quantize run/step-00002000 out/m.gguf --with-tables", "its memory tables too"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("in", options->in, "GGUF file, Hugging Face folder or name of a stored model")
           ->required()
           ->type_name("IN");
       app.add_option("out", options->out, "File or, ending with '/', folder to write")
           ->required()
           ->type_name("OUT");
       app.add_option("--type", options->quantize.type, "q8_0, q4_0, q4_1, f16, bf16 or f32")
           ->capture_default_str();
       app.add_flag("--pure", options->quantize.pure, "4-bit types: the embedding too, instead of q8_0");
       app.add_flag("--with-tables", options->quantize.copy_tables,
                    "Copy the model's memory tables beside OUT, which otherwise names them where they are");
       app.add_option("--note", options->notes, "Text for a GGUF file's metadata: general.license=mit, ...")
           ->type_name("KEY=TEXT")
           ->allow_extra_args(false);
       app.add_option("--format", options->format, "auto (by OUT), gguf or hf")->capture_default_str();
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::quantize_verb
