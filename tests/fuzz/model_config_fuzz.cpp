// Model configs from any bytes, as the schema of docs/config.md and as a Hugging Face config.json: refused
// with mneme::Error, or valid; then written, read again and used for names, shapes and frequencies.
#include <cmath>
#include <cstdlib>

#include "mneme/error.h"
#include "mneme/model_config.h"
#include "model/import_hf.h"
#include "model/rope_frequencies.h"
#include "model/tensor_names.h"

namespace {

void require_true(bool condition) {
  if (!condition) std::abort();
}

void use(const mneme::ModelConfig& config) {
  config.validate();
  const std::string text = config.to_json();
  require_true(mneme::ModelConfig::from_json(text) == config);
  if (config.layers.size() > 64) return;  // names of thousands of layers only cost time
  require_true(mneme::hf_to_canonical(config).size() == mneme::expected_tensors(config).size());
  for (const auto& layer : config.layers)
    for (const auto& mixer : layer.mixer.branches()) {
      if (!mixer.softmax()) continue;
      for (const float f : mneme::rope_inverse_frequencies(mixer.rope.value_or(config.rope), mixer.head_dim))
        require_true(std::isfinite(f) && f >= 0);
    }
}

template <class F>
void attempt(F&& read) {
  mneme::ModelConfig config;
  try {
    config = read();
  } catch (const mneme::Error&) {
    return;
  }
  use(config);  // what was accepted must not fail later
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  attempt([&] { return mneme::ModelConfig::from_json(text); });
  attempt([&] { return mneme::config_from_hf(text); });
  return 0;
}
