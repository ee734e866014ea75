#include "engine/synthetic.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/fail.h"
#include "core/random.h"
#include "engine/session_impl.h"

namespace mneme {
namespace {

// Box and Muller (1958).
void normals(Pcg64& random, std::vector<float>& out) {
  for (float& value : out)
    value = static_cast<float>(std::sqrt(-2 * std::log(1 - random.uniform())) *
                               std::cos(6.283185307179586 * random.uniform()));
}

// One block of random keys and values for every group; the blocks of a session are copies of it.
std::vector<HugeBuffer> make_templates(const CacheLayout& layout, Pcg64& random) {
  std::vector<HugeBuffer> blocks;
  for (const CacheLayout::Group& group : layout.groups)
    blocks.emplace_back(static_cast<uint64_t>(group.block_bytes));
  for (const CacheLayout::Layer& layer : layout.layers) {
    if (layer.geometry.kv_heads == 0) continue;  // a recurrence has no keys
    std::vector<float> k(static_cast<size_t>(layer.geometry.head_dim)), v(k.size());
    std::byte* page = blocks[layer.group].data() + layer.offset;
    for (int64_t head = 0; head < layer.geometry.kv_heads; ++head) {
      for (int64_t position = 0; position < kPagePositions; ++position) {
        normals(random, k);
        normals(random, v);
        store_kv(layer.geometry, page, head, position, k.data(), v.data());
      }
    }
  }
  return blocks;
}

// Every state that the reserved pass writes becomes `state`; the rows of the log, zeros.
void fill_recurrent(const RecurrentStates& states, const std::vector<float>& state) {
  if (states.empty()) return;
  for (const auto& segment : states.segments()) {
    std::copy(state.begin(), state.end(), segment.out);
    for (int64_t at = segment.begin; at < segment.end; ++at)
      if (float* row = states.log_row(at)) std::fill_n(row, states.layout().log_values, 0.0f);
  }
}

// Sparse layers choose among blocks, so that theirs must differ; for the others one template will do.
constexpr size_t kSparseTemplates = 16;

size_t template_count(const CacheLayout& layout) {
  const bool sparse = std::any_of(layout.layers.begin(), layout.layers.end(),
                                  [](const auto& layer) { return layer.summary > 0; });
  return sparse ? kSparseTemplates : 1;
}

}  // namespace

void fill_synthetic(Session& session, uint64_t n, uint64_t seed,
                    const std::function<void(uint64_t done, uint64_t total)>& progress) {
  SessionImpl& s = session.impl();
  require(s.state.position() == 0, ErrorCode::invalid_argument,
          "only an empty session can be filled with synthetic keys; this one holds {} tokens",
          s.state.position());
  s.check_room(n);
  Pcg64 random(seed);
  std::vector<std::vector<HugeBuffer>> templates;
  for (size_t i = template_count(s.state.layout()); i > 0; --i)
    templates.push_back(make_templates(s.state.layout(), random));
  std::vector<float> state(static_cast<size_t>(s.state.layout().recurrent.state_values));
  normals(random, state);
  s.has_logits = false;
  for (uint64_t done = 0; done < n;) {
    const auto step = std::min<uint64_t>(n - done, kPagePositions);
    const auto block = static_cast<size_t>(done / kPagePositions);
    s.state.reserve(static_cast<int64_t>(step));
    const auto& content = templates[templates.size() > 1 ? random.below(templates.size()) : 0];
    for (size_t g = 0; g < content.size(); ++g)
      std::memcpy(s.state.blocks()[g][block]->data(), content[g].data(), content[g].size());
    fill_recurrent(s.state.recurrent(), state);
    s.state.advance(static_cast<int64_t>(step));
    for (uint64_t i = 0; i < step; ++i) s.tokens.push_back(static_cast<TokenId>(random.below(s.vocab())));
    done += step;
    if (progress) progress(done, n);
  }
  s.state.forget_summaries();
}

}  // namespace mneme
