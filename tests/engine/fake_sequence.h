// A model without weights: the logits after a history are pseudo-random numbers made from that history, so
// equal histories give equal logits and a single wrong token changes everything after it. Knobs make it fail,
// pause or be observed. Its vocabulary spells text, cuts UTF-8 characters apart, and has stop tokens.
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/fail.h"
#include "core/random.h"
#include "engine/sequence.h"

namespace mneme::testing_fakes {

inline constexpr TokenId kEnd = 0, kSecondEnd = 1, kPoison = 2;

class FakeTokenizer : public Tokenizer {
 public:
  FakeTokenizer() {
    pieces_ = {"", "", "!", "\xC3", "\xA9", "\xE4\xB8", "\xAD"};  // é and 中 in two parts each
    for (char c = 'a'; c <= 'z'; ++c) pieces_.push_back(std::string(1, c));
    for (const char* more : {" the", "STOP", "ST", "OP", "\n\n", "User", ":"}) pieces_.push_back(more);
  }
  std::vector<TokenId> encode(std::string_view text, const EncodeOptions&) const override {
    std::vector<TokenId> ids;
    for (const char c : text) ids.push_back(static_cast<TokenId>(7 + (c - 'a')));
    return ids;
  }
  std::string decode(std::span<const TokenId> ids, const DecodeOptions&) const override {
    std::string out;
    for (const TokenId id : ids) out += piece(id);
    return out;
  }
  std::string piece(TokenId id) const override { return pieces_.at(static_cast<size_t>(id)); }
  std::string token(TokenId id) const override { return piece(id); }
  uint32_t vocab_size() const noexcept override { return static_cast<uint32_t>(pieces_.size()); }
  TokenId bos() const noexcept override { return -1; }
  TokenId eos() const noexcept override { return kEnd; }
  std::span<const TokenId> stop_tokens() const noexcept override { return stops_; }
  bool is_control(TokenId id) const noexcept override { return id <= kSecondEnd; }
  TokenId find(std::string_view token) const noexcept override {
    for (size_t i = 0; i < pieces_.size(); ++i)
      if (pieces_[i] == token) return static_cast<TokenId>(i);
    return -1;
  }
  const std::string& chat_template() const noexcept override { return template_; }

 private:
  std::vector<std::string> pieces_, empty_;
  std::vector<TokenId> stops_{kEnd, kSecondEnd};
  std::string template_;
};

// What all sequences of one fake model share.
struct FakeModel {
  FakeTokenizer tokenizer;
  uint64_t context = 200;
  uint32_t chunk = 16;
  std::map<std::vector<TokenId>, std::vector<TokenId>>
      scripts;                                 // prompt -> continuation that it is certain of
  bool poison = false;                         // processing kPoison throws Error(internal)
  std::function<void(size_t batch)> on_batch;  // before a batched step
  std::function<void(size_t position)> on_append;
  std::mutex mutex;
  std::vector<size_t> batches;  // sizes of the batched steps
};

class FakeSequence final : public Sequence {
 public:
  explicit FakeSequence(FakeModel& model) : model_(model) {}

  std::span<const float> append(std::span<const TokenId> ids, const AppendOptions& options) override {
    const size_t before = tokens_.size();
    require(before + ids.size() <= model_.context, ErrorCode::limit, "fake context is full");
    std::vector<float> chunk_logits, all_logits;
    for (size_t at = 0; at < ids.size();) {
      const size_t count = std::min<size_t>(model_.chunk, ids.size() - at);
      chunk_logits.clear();
      for (size_t i = at; i < at + count; ++i) {
        if (model_.on_append) model_.on_append(tokens_.size());
        if ((options.cancel != nullptr && options.cancel->cancelled()) ||
            (model_.poison && ids[i] == kPoison)) {
          const bool cancelled = ids[i] != kPoison || !model_.poison;
          tokens_.resize(before);
          fail(cancelled ? ErrorCode::cancelled : ErrorCode::internal, "fake {}",
               cancelled ? "cancel" : "poison");
        }
        tokens_.push_back(ids[i]);
        if (!options.all_logits) continue;
        compute();
        chunk_logits.insert(chunk_logits.end(), logits_.begin(), logits_.end());
      }
      if (options.on_logits) {
        options.on_logits(at, count, chunk_logits.data());
      } else {
        all_logits.insert(all_logits.end(), chunk_logits.begin(), chunk_logits.end());
      }
      at += count;
      if (options.progress) options.progress(at, ids.size());
    }
    compute();
    if (!options.all_logits) return logits_;
    all_logits_ = std::move(all_logits);
    return all_logits_;
  }
  std::span<const float> logits() const override { return logits_; }
  const std::vector<TokenId>& tokens() const override { return tokens_; }
  uint64_t context() const override { return model_.context; }
  uint32_t chunk() const override { return model_.chunk; }
  std::unique_ptr<Sequence> fork() const override { return std::make_unique<FakeSequence>(*this); }

 private:
  void compute() {
    logits_.resize(model_.tokenizer.vocab_size());
    for (const auto& [prompt, script] : model_.scripts) {
      if (tokens_.size() < prompt.size() || tokens_.size() >= prompt.size() + script.size() ||
          !std::equal(prompt.begin(), prompt.end(), tokens_.begin()))
        continue;
      std::fill(logits_.begin(), logits_.end(), -100.0F);
      logits_[static_cast<size_t>(script[tokens_.size() - prompt.size()])] = 100.0F;
      return;
    }
    uint64_t hash = 0xcbf29ce484222325;
    for (const TokenId token : tokens_) hash = (hash ^ static_cast<uint64_t>(token)) * 0x100000001b3;
    Pcg64 random(hash);
    for (float& logit : logits_) logit = static_cast<float>(8 * random.uniform());
    logits_[kEnd] -= 1.0F;  // rarer than others, or nothing would grow long
    logits_[kSecondEnd] -= 1.0F;
  }

  FakeModel& model_;
  std::vector<TokenId> tokens_;
  std::vector<float> logits_, all_logits_;
};

class FakeRunner final : public SequenceRunner {
 public:
  explicit FakeRunner(FakeModel& model) : model_(model) {}

  std::unique_ptr<Sequence> start() override { return std::make_unique<FakeSequence>(model_); }

  void append_batch(std::span<Sequence* const> sequences, std::span<const TokenId> ids,
                    const CancelToken* cancel) override {
    if (model_.on_batch) model_.on_batch(sequences.size());
    {
      const std::lock_guard lock(model_.mutex);
      model_.batches.push_back(sequences.size());
    }
    require(cancel == nullptr || !cancel->cancelled(), ErrorCode::cancelled, "fake cancel");
    for (size_t i = 0; i < ids.size(); ++i)
      require(!model_.poison || ids[i] != kPoison, ErrorCode::internal, "fake poison");
    for (size_t i = 0; i < ids.size(); ++i) sequences[i]->append({&ids[i], 1}, {});
  }

  const Tokenizer* tokenizer() const override { return &model_.tokenizer; }

 private:
  FakeModel& model_;
};

}  // namespace mneme::testing_fakes
