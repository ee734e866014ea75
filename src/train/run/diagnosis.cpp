#include "train/run/diagnosis.h"

#include <algorithm>

#include "core/fail.h"

namespace mneme::train {
namespace {

bool finite(const Tensor& tensor) {
  return !tensor.defined() || at::isfinite(tensor).all().item<bool>();
}

}  // namespace

std::string first_not_finite(const Training& training, const Tensor& tokens, const BatchRows& rows,
                             const PassOptions& options) {
  const at::NoGradGuard no_graph;
  for (const std::string& name : training.parameters.names())
    if (!finite(training.parameters.at(name))) return "parameter " + name;
  for (const auto& [table, layers] : rows)
    for (const auto& [layer, touched] : layers)
      if (!finite(touched.rows)) return "rows of the table " + table;
  ModelConfig shorter = training.config;
  for (size_t layers = 1; layers <= training.config.layers.size(); ++layers) {
    shorter.layers.assign(training.config.layers.begin(),
                          training.config.layers.begin() + static_cast<std::ptrdiff_t>(layers));
    const Decoder decoder(shorter, training.parameters);
    try {
      if (!finite(decoder.hidden(tokens, rows, options)))
        return "the output of layer " + std::to_string(layers - 1);
    } catch (const Error& error) {  // a router that does not go on
      return error.what();
    }
  }
  return "the logits";
}

std::string first_gradient_not_finite(const Training& training, const BatchRows& rows) {
  const auto& names = training.parameters.names();
  for (auto name = names.rbegin(); name != names.rend(); ++name)
    if (!finite(training.parameters.at(*name).grad())) return "the gradient of " + *name;
  for (const auto& [table, layers] : rows)
    for (const auto& [layer, touched] : layers)
      if (!finite(touched.rows.grad())) return "the gradient of rows of the table " + table;
  return {};
}

}  // namespace mneme::train
