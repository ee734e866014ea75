// Perplexity: exp of the mean negative log-likelihood that a model gives to the tokens of a text.
//
// The text is cut into non-overlapping windows of ctx tokens, each read by a fresh sequence. The first half
// of a window is context only; every token of the second half is scored given all before it in the window.
// Tokens after the last whole window are left out. If the model's own post-processor puts a BOS at the start
// of a text, the first token of every window is replaced by it, since such models are lost without one. (The
// same scheme as llama.cpp's, except that it leaves the first token of the second half unscored.)
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/sequence.h"

namespace mneme {

struct PerplexityOptions {
  uint32_t ctx = 512;       // tokens per window, at least 2
  uint64_t max_tokens = 0;  // stop after so many tokens of the text; 0 = all
  const CancelToken* cancel = nullptr;
  /// After each chunk, and once more after each window: tokens of the text used so far, how many there will
  /// be (an estimate until the text has been read), and the perplexity so far (0 before the first score).
  std::function<void(uint64_t tokens, uint64_t estimated_total, double ppl)> progress;
};

struct PerplexityResult {
  uint64_t tokens = 0;        // scored
  double nll = 0;             // mean, nats a token
  double ppl = 0;             // exp(nll)
  double standard_error = 0;  // of ppl: ppl * sd(nll of a token) / sqrt(tokens), by the delta method
};

/// Tokens of a text in order. `next` appends some to its argument and returns false once there are no more;
/// `estimated_total` may change as reading goes on.
struct TokenStream {
  std::function<bool(std::vector<TokenId>& tokens)> next;
  std::function<uint64_t()> estimated_total;  // may be empty: unknown, 0
  TokenId bos = -1;                           // replaces the first token of a window; -1: none does
};

/// Throws Error: invalid_argument (ctx below 2, or fewer tokens than one window), limit (ctx beyond the
/// model's context), cancelled, corrupt (logits with NaN). Memory: one window, one piece of text, and at most
/// 64 MiB of logits at a time besides the sequence itself.
PerplexityResult perplexity(SequenceRunner& runner, const TokenStream& text,
                            const PerplexityOptions& options);

/// Perplexity of a text file of any length. Errors as above, and not_found, io, and not_found for a model
/// without tokenizer.
PerplexityResult perplexity(const std::shared_ptr<const Model>& model, const std::filesystem::path& file,
                            const PerplexityOptions& options, const SessionOptions& session = {});

/// The BOS that the tokenizer's own post-processor puts at the start of a text, -1 if it puts none.
TokenId opening_bos(const Tokenizer& tokenizer);

/// Tokens that are there already, which must outlive the stream.
TokenStream stream_ids(std::span<const TokenId> ids, TokenId bos);

/// The tokens of a file, piece by piece. `tokenizer` must outlive the stream.
TokenStream stream_file(const Tokenizer& tokenizer, const std::filesystem::path& file);

}  // namespace mneme
