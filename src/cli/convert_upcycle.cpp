#include "cli/convert_upcycle.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <exception>

#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/store.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "convert/export_hf.h"
#include "core/fail.h"
#include "eval/perplexity.h"

namespace mneme::cli {
namespace {

std::shared_ptr<const Model> load_as_float(const std::string& path, const CommonOptions& common) {
  ModelOptions options;
  options.model = path;
  options.activation = "float";
  return load_model(options, common);
}

/// Of all validation texts together; 0 if the recipe names none.
double perplexity_of(const std::string& path, const UpcycleRecipe& recipe, const CommonOptions& common,
                     const CancelToken& cancel) {
  if (recipe.validation.empty()) return 0;
  const auto model = load_as_float(path, common);
  double nll = 0;
  uint64_t tokens = 0;
  for (const fs::path& file : recipe.validation) {
    Progress bar("Scoring", Progress::Unit::tokens, !common.quiet);
    PerplexityOptions request;
    request.ctx = recipe.context;
    request.max_tokens = recipe.tokens;
    request.cancel = &cancel;
    request.progress = [&bar](uint64_t done, uint64_t total, double) { bar.update(done, total); };
    const PerplexityResult result = perplexity(model, file, request);
    nll += result.nll * static_cast<double>(result.tokens);
    tokens += result.tokens;
  }
  return std::exp(nll / static_cast<double>(tokens));
}

void save_report(const std::string& out, const Json& report) {
  AtomicFile file(fs::path(out) / "conversion.json");
  file.write(report.dump(1) + "\n");
  file.commit();
}

/// `dense`: the config before; `after`: NaN if it was not measured. Layers that were mixtures already are not
/// counted.
Json report_of(const UpcycleRecipe& recipe, const ModelConfig& dense, const ModelConfig& config,
               double before, double after, double seconds) {
  Json layers = Json::array();
  for (size_t i = 0; i < config.layers.size(); ++i)
    if (config.layers[i].ffn.moe() && !dense.layers[i].ffn.moe()) layers.push_back(i);
  const double factor = upcycle_factor(recipe.options);
  const bool named = !recipe.validation.empty(), scored = named && !std::isnan(after);
  const Json stage = {{"kind", "upcycle"},
                      {"layers", layers},
                      {"experts", recipe.options.experts},
                      {"shared", recipe.options.shared},
                      {"top_k", recipe.options.top_k},
                      {"alpha", recipe.options.scale == UpcycleScale::spread ? std::cbrt(factor) : factor},
                      {"ppl_before", named ? Json(before) : Json()},
                      {"ppl_after", scored ? Json(after) : Json()}};
  return {{"original", {{"ppl", named ? Json(before) : Json()}}},
          {"stages", Json::array({stage})},
          {"ppl", scored ? Json(after) : Json()},
          {"ppl_ratio", scored ? Json(after / before) : Json()},
          {"seconds", seconds}};
}

void print_summary(const UpcycleRecipe& recipe, const Json& report, const std::string& out) {
  const UpcycleOptions& o = recipe.options;
  print(fmt::format(
      "{}: {} layers with {} routed and {} shared experts, {} of a token; factor {:.4f} on {}\n", out,
      report["stages"][0]["layers"].size(), o.experts, o.shared, o.top_k,
      report["stages"][0]["alpha"].get<double>(), o.scale == UpcycleScale::spread ? "each matrix" : "down"));
  if (report["ppl"].is_null())
    print("not measured: the recipe names no data.validation\n");
  else
    print(fmt::format("perplexity {:.4f} of the dense model, {:.4f} of the mixture: {:+.2f} %\n",
                      report["original"]["ppl"].get<double>(), report["ppl"].get<double>(),
                      100 * (report["ppl_ratio"].get<double>() - 1)));
}

}  // namespace

int run_upcycling(const std::string& in, const std::string& out, const UpcycleRecipe& recipe,
                  const CommonOptions& common) {
  const auto type = dtype_from_name(recipe.type);
  if (!type || (*type != DType::f32 && *type != DType::f16 && *type != DType::bf16))
    throw UsageError(
        fmt::format("the recipe's type is \"{}\"; a folder holds f32, f16 or bf16", recipe.type));
  for (const fs::path& text : recipe.validation)
    require(fs::exists(text), ErrorCode::not_found, "the recipe names a text {}, which is not there",
            text.string());
  check_new_folder(out);
  const auto start = std::chrono::steady_clock::now();
  const InterruptScope interrupt;
  const std::string path = resolve_model(in).string();
  Checkpoint original = open_checkpoint(path);
  const ModelConfig dense = original.config();
  const Checkpoint mixture =
      upcycle(std::move(original), recipe.options);  // refuses before minutes have passed
  const double before = perplexity_of(path, recipe, common, interrupt.token());
  {
    Progress bar("Writing", Progress::Unit::bytes, !common.quiet);
    QuantizeOptions options;
    options.threads = common.threads;
    options.progress = [&](uint64_t done, uint64_t total) {
      if (interrupt.interrupted()) fail(ErrorCode::cancelled, "stopped; {} was not written", out);
      bar.update(done, total);
    };
    export_hf(mixture, out, *type, options);
  }
  // OUT is whole by now. If scoring it is stopped or fails, its report says that it was not measured.
  double after = std::nan("");
  std::exception_ptr unscored;
  try {
    after = perplexity_of(out, recipe, common, interrupt.token());
  } catch (const Error&) {
    unscored = std::current_exception();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const Json report = report_of(recipe, dense, mixture.config(), before, after, seconds);
  save_report(out, report);
  if (unscored) {
    if (!common.quiet) fmt::print(stderr, "note: {} is written; its perplexity was not measured\n", out);
    std::rethrow_exception(unscored);
  }
  if (common.json)
    print_json(report);
  else
    print_summary(recipe, report, out);
  flush_output();
  return kDone;
}

}  // namespace mneme::cli
