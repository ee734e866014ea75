#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/byte_stream.h"
#include "core/fail.h"
#include "eval/log_softmax.h"
#include "eval/moments.h"
#include "text/stream_encoder.h"

namespace mneme {
namespace {

constexpr uint64_t kLogitsAtOnce = uint64_t{16} << 20;  // floats

// Scores window[half, ctx). The logits after token i - 1 predict token i.
void score_window(SequenceRunner& runner, std::span<const TokenId> window, const CancelToken* cancel,
                  const std::function<void(uint64_t done)>& progress, Moments& scores) {
  const auto sequence = runner.start();
  require(window.size() <= sequence->context(), ErrorCode::limit,
          "windows of {} tokens do not fit the context of {}", window.size(), sequence->context());
  const size_t half = window.size() / 2;
  AppendOptions options;
  options.cancel = cancel;
  options.progress = [&](uint64_t done, uint64_t) { progress(done); };
  const auto first = sequence->append(window.first(half), options);
  const size_t vocab = first.size();
  scores.add(negative_log_likelihood(first, window[half]));

  const auto rest = window.subspan(half, window.size() - half - 1);
  const size_t piece = std::clamp<size_t>(kLogitsAtOnce / std::max<size_t>(vocab, 1), 1, sequence->chunk());
  options.all_logits = true;
  for (size_t at = 0; at < rest.size(); at += piece) {
    const size_t from = half + at;
    options.progress = [&](uint64_t done, uint64_t) { progress(from + done); };
    options.on_logits = [&](uint64_t done, uint64_t count, const float* logits) {
      for (uint64_t i = 0; i < count; ++i)
        scores.add(negative_log_likelihood({logits + i * vocab, vocab}, window[from + done + i + 1]));
    };
    sequence->append(rest.subspan(at, std::min(piece, rest.size() - at)), options);
  }
}

}  // namespace

PerplexityResult perplexity(SequenceRunner& runner, const TokenStream& text,
                            const PerplexityOptions& options) {
  require(options.ctx >= 2, ErrorCode::invalid_argument, "ctx is {}: a window needs at least 2 tokens",
          options.ctx);
  Moments scores;
  std::vector<TokenId> tokens;  // read and not yet used
  uint64_t used = 0;
  size_t at = 0;
  bool more = true;
  const uint64_t limit = options.max_tokens == 0 ? ~uint64_t{0} : options.max_tokens;
  while (true) {
    while (more && tokens.size() - at < options.ctx) {
      tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(at));
      at = 0;
      more = text.next(tokens);
    }
    if (tokens.size() - at < options.ctx || limit - used < options.ctx) break;
    require(options.cancel == nullptr || !options.cancel->cancelled(), ErrorCode::cancelled,
            "stopped after {} tokens", used);
    const std::span<TokenId> window = std::span(tokens).subspan(at, options.ctx);
    if (text.bos >= 0) window[0] = text.bos;
    const auto progress = [&](uint64_t done) {
      if (!options.progress) return;
      const uint64_t total = text.estimated_total ? text.estimated_total() : 0;
      options.progress(used + done, std::min(limit, std::max(used + done, total)),
                       scores.count() > 0 ? std::exp(scores.mean()) : 0);
    };
    score_window(runner, window, options.cancel, progress, scores);
    progress(options.ctx);
    at += options.ctx;
    used += options.ctx;
  }
  require(scores.count() > 0, ErrorCode::invalid_argument,
          "the text has {} tokens{}, fewer than one window of {}; take a longer text or a smaller ctx",
          std::min<uint64_t>(tokens.size(), limit), limit < tokens.size() ? " within the limit" : "",
          options.ctx);
  PerplexityResult result;
  result.tokens = scores.count();
  result.nll = scores.mean();
  result.ppl = std::exp(result.nll);
  result.standard_error = result.ppl * scores.deviation() / std::sqrt(static_cast<double>(scores.count()));
  return result;
}

TokenId opening_bos(const Tokenizer& tokenizer) {
  const auto opening = tokenizer.encode("", {.add_special = true, .parse_special = false});
  return !opening.empty() && opening.front() == tokenizer.bos() ? opening.front() : -1;
}

TokenStream stream_ids(std::span<const TokenId> ids, TokenId bos) {
  TokenStream stream;
  stream.bos = bos;
  stream.next = [ids](std::vector<TokenId>& tokens) {
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    return false;
  };
  return stream;
}

TokenStream stream_file(const Tokenizer& tokenizer, const std::filesystem::path& file) {
  struct State {
    ByteStream bytes;
    StreamEncoder encoder;
    uint64_t tokens = 0;
    std::vector<TokenId> opening;
    bool done = false;
  };
  // The BOS opens the text once; the text itself is plain, whatever special tokens it may spell.
  const auto state = std::make_shared<State>(State{
      ByteStream(file), StreamEncoder(tokenizer, {.add_special = false, .parse_special = false}), 0, {}});
  TokenStream stream;
  stream.bos = opening_bos(tokenizer);
  if (stream.bos >= 0) state->opening = {stream.bos};
  stream.next = [state](std::vector<TokenId>& tokens) {
    if (state->done) return false;
    if (!state->opening.empty()) tokens.push_back(state->opening.front());
    state->opening.clear();
    const size_t before = tokens.size();
    const std::string_view bytes = state->bytes.next();
    state->done = bytes.empty();
    if (state->done)
      state->encoder.finish(tokens);
    else
      state->encoder.push(bytes, tokens);
    state->tokens += tokens.size() - before;
    return true;
  };
  stream.estimated_total = [state] {
    const auto read = static_cast<double>(state->bytes.bytes_read());
    const auto total = static_cast<double>(state->bytes.total_bytes());
    return read > 0 ? static_cast<uint64_t>(static_cast<double>(state->tokens) * total / read) : uint64_t{0};
  };
  return stream;
}

}  // namespace mneme
