#include "train/run/sample.h"

#include <algorithm>

#include "mneme/sampling.h"

namespace mneme::train {

std::string sample_text(const Training& training, const Tokenizer& tokenizer, const SamplesConfig& config,
                        const std::string& prompt, uint64_t seed,
                        const std::function<BatchRows(const Tensor& tokens)>& touch) {
  const at::NoGradGuard no_graph;
  std::vector<TokenId> ids = tokenizer.encode(prompt, {.add_special = true, .parse_special = false});
  if (ids.empty()) ids.push_back(std::max(0, tokenizer.eos()));  // a text begins after the end of another
  const size_t begin = ids.size();
  SamplingOptions options;
  options.temperature = config.temperature;
  options.seed = seed;
  Sampler sampler(options);
  const auto stops = tokenizer.stop_tokens();
  const size_t context = training.config.context == 0 ? SIZE_MAX : training.config.context;
  const auto device = training.parameters.at("token_embd.weight").device();
  for (uint32_t i = 0; i < config.tokens && ids.size() < context; ++i) {
    const std::vector<int64_t> wide(ids.begin(), ids.end());
    const Tensor tokens = at::tensor(wide, at::kLong).unsqueeze(0);
    const Tensor logits = training.decoder->logits(tokens.to(device), touch(tokens))[0][-1]
                              .to(at::kCPU, at::kFloat)
                              .contiguous();
    const TokenId next = sampler.sample({logits.data_ptr<float>(), static_cast<size_t>(logits.numel())}, ids);
    if (std::binary_search(stops.begin(), stops.end(), next) || next == tokenizer.eos()) break;
    ids.push_back(next);
  }
  Utf8Stream whole;
  std::string text = whole.push(tokenizer.decode(std::span(ids).subspan(begin), {.skip_special = true}));
  return text + whole.finish();
}

}  // namespace mneme::train
