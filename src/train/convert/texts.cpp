#include "train/convert/texts.h"

#include <algorithm>

#include "core/fail.h"
#include "eval/perplexity.h"
#include "text/tokenizer_fingerprint.h"
#include "train/data/data_order.h"
#include "train/data/shard_build.h"

namespace mneme::train {
namespace {

/// Most tokens of held-out text that any part of the recipe asks for.
uint64_t held_out_tokens(const Recipe& recipe) {
  uint64_t most = std::max<uint64_t>(recipe.tokens, recipe.context);
  for (const Stage& stage : recipe.stages) {
    if (stage.layers.choose > 0) most = std::max(most, stage.layers.tokens);
    if (stage.tune.measure_every > 0) most = std::max(most, stage.tune.measure_tokens);
  }
  return most;
}

HeldOut read_held_out(const Recipe& recipe, const Tokenizer& tokenizer) {
  const uint64_t most = held_out_tokens(recipe);
  std::vector<int64_t> out;
  std::vector<TokenId> tokens;
  int64_t bos = -1;
  for (const fs::path& file : recipe.validation) {
    const TokenStream stream = stream_file(tokenizer, file);
    bos = stream.bos;
    for (tokens.clear(); out.size() < most && stream.next(tokens); tokens.clear())
      out.insert(out.end(), tokens.begin(), tokens.end());
  }
  if (out.size() > most) out.resize(most);
  return {std::move(out), recipe.context, bos};
}

}  // namespace

ConversionTexts::Batch ConversionTexts::batch(uint64_t first, uint32_t count, uint32_t length,
                                              uint64_t seed) const {
  const DataOrder order(*train, length, seed);
  const Tensor both = at::empty({count, length + 1}, at::kLong);
  for (uint32_t i = 0; i < count; ++i)
    order.fill(first + i, {both.data_ptr<int64_t>() + size_t{i} * (length + 1), size_t{length} + 1});
  return {both.narrow(1, 0, length).contiguous(), both.narrow(1, 1, length).contiguous()};
}

ConversionTexts open_texts(const Recipe& recipe, const Tokenizer* tokenizer, const fs::path& folder,
                           int threads, const Tick& tick) {
  ConversionTexts out;
  require(tokenizer || (recipe.train.empty() && recipe.validation.empty()), ErrorCode::not_found,
          "the model has no tokenizer, which the recipe's texts need");
  if (!recipe.train.empty()) {
    std::vector<std::string> inputs;
    for (const fs::path& path : recipe.train) inputs.push_back(path.string());
    ShardOptions options;
    options.documents.field = recipe.text_field;
    options.threads = threads;
    options.progress = [&](uint64_t done, uint64_t total) {
      tick(done, total);
      return true;
    };
    build_shards(inputs, *tokenizer, folder, options);
    out.train = ShardSet::open(folder);
    out.train->require_tokenizer(tokenizer_fingerprint(*tokenizer), "the model");
  }
  if (!recipe.validation.empty()) out.held_out = read_held_out(recipe, *tokenizer);
  return out;
}

}  // namespace mneme::train
