#include "eval/recall.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <limits>
#include <numeric>

#include "core/fail.h"
#include "engine/generation.h"
#include "eval/haystack.h"
#include "eval/moments.h"
#include "eval/prompt_frame.h"
#include "eval/prompt_tree.h"

namespace mneme {
namespace {

constexpr EncodeOptions kPlain{.add_special = false, .parse_special = false};

uint64_t mixed_seed(uint64_t seed, uint64_t sample, uint64_t length, uint64_t depth) {
  uint64_t state = seed;
  for (const uint64_t part : {sample, length, depth}) state = seed_sequence(state ^ (part + 1))[0];
  return state;
}

// The lines of a haystack as tokens, as many as the longest prompt can need.
class Lines {
 public:
  Lines(const Tokenizer& tokenizer, Haystack haystack)
      : tokenizer_(tokenizer), haystack_(std::move(haystack)) {}

  /// Lines that fit into `room` tokens, one after the other from the first. Call once, with the most room.
  void fill(uint64_t room) {
    for (;;) {
      const auto ids = tokenizer_.encode(haystack_.next() + "\n", kPlain);
      ids_.insert(ids_.end(), ids.begin(), ids.end());
      ends_.push_back(ids_.size());
      if (ids_.size() > room) return;
    }
  }
  size_t count_within(uint64_t room) const {
    return static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), room) - ends_.begin());
  }
  std::span<const TokenId> lines(size_t first, size_t last) const {
    const uint64_t from = first == 0 ? 0 : ends_[first - 1], to = last == 0 ? 0 : ends_[last - 1];
    return std::span(ids_).subspan(from, to - from);
  }

 private:
  const Tokenizer& tokenizer_;
  Haystack haystack_;
  std::vector<TokenId> ids_;
  std::vector<uint64_t> ends_;
};

/// A question about one document, as a prompt, and how its answer counts.
struct Asked {
  Prompt prompt;
  size_t length = 0;           // index of it
  std::vector<size_t> depths;  // index, of each expected item
  std::vector<std::string> expected;
  std::string question;
};

class Evaluation {
 public:
  Evaluation(SequenceRunner& runner, const RecallOptions& options)
      : runner_(runner), options_(options), tokenizer_(*runner.tokenizer()) {
    const bool chat = !options.raw && !tokenizer_.chat_template().empty();
    frame_ = chat ? chat_frame(tokenizer_) : raw_frame(tokenizer_);
    if (!chat) frame_.close = tokenizer_.encode("\n", kPlain);
    const size_t cells = options.lengths.size() * options.depths.size();
    held_.resize(cells);
    result_.cells.resize(cells);
    for (size_t i = 0; i < cells; ++i) {
      result_.cells[i].length = options.lengths[i / options.depths.size()];
      result_.cells[i].depth = options.depths[i % options.depths.size()];
    }
  }

  RecallResult run() {
    const auto started = std::chrono::steady_clock::now();
    try {
      for (uint32_t sample = 0; sample < options_.samples; ++sample) run_sample(sample);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::cancelled || scores_.count() == 0) throw;
      result_.complete = false;
    }
    result_.n = scores_.count();
    result_.score = scores_.mean();
    result_.standard_error = scores_.deviation() / std::sqrt(static_cast<double>(result_.n));
    for (size_t i = 0; i < held_.size(); ++i) {
      RecallCell& cell = result_.cells[i];
      cell.score = cell.items == 0 ? std::numeric_limits<double>::quiet_NaN()
                                   : static_cast<double>(held_[i]) / static_cast<double>(cell.items);
    }
    result_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    return std::move(result_);
  }

 private:
  bool one_item() const { return options_.task == RecallTask::needle; }

  void run_sample(uint32_t sample) {
    const uint64_t seed = mixed_seed(options_.seed, sample, 0, 0);
    Lines lines(tokenizer_,
                options_.text.empty() ? Haystack(seed) : Haystack(options_.text, sample == 0 ? 0 : seed));
    lines.fill(*std::max_element(options_.lengths.begin(), options_.lengths.end()));
    store_.clear();
    std::vector<Asked> asked;
    for (size_t length = 0; length < options_.lengths.size(); ++length) {
      for (size_t depth = 0; depth < (one_item() ? options_.depths.size() : 1); ++depth) {
        const auto document = make_recall_document(options_.task, options_.items, options_.distractors,
                                                   mixed_seed(options_.seed, sample, length + 1, depth + 1));
        const auto depths =
            one_item() ? std::vector<size_t>{depth} : deal_depths(document.items.size(), sample, length);
        add_questions(document, depths, lines, length, seed + length, asked);
      }
    }
    std::vector<Prompt> prompts;
    for (const Asked& one : asked) prompts.push_back(one.prompt);
    const PromptTree tree = plan_prompts(prompts);
    result_.prompt_tokens += tree.total;
    plan_progress(tree.unique, asked, sample);
    PromptVisitor visitor;
    visitor.cancel = options_.cancel;
    visitor.progress = [&](uint64_t tokens) {
      result_.tokens_read += tokens;
      advance(tokens);
    };
    visitor.answer = [&](size_t which, Sequence& sequence, TokenId last) {
      answer(asked[which], sample, sequence, last);
    };
    read_prompts(runner_, prompts, tree, visitor);
  }

  /// Depths of a document's items: over the samples of a length every depth gets as many as any other, give
  /// or take one. Ascending, for chains.
  std::vector<size_t> deal_depths(size_t items, uint32_t sample, size_t length) const {
    std::vector<size_t> deck(options_.depths.size());
    std::iota(deck.begin(), deck.end(), size_t{0});
    Pcg64 random(mixed_seed(options_.seed, ~uint64_t{0} - 1, length, 0));
    for (size_t i = deck.size(); i > 1; --i) std::swap(deck[i - 1], deck[random.below(i)]);
    std::vector<size_t> depths;
    for (size_t i = 0; i < items; ++i) depths.push_back(deck[(sample * items + i) % deck.size()]);
    std::sort(depths.begin(), depths.end(),
              [&](size_t a, size_t b) { return options_.depths[a] < options_.depths[b]; });
    return depths;
  }

  std::span<const TokenId> stored(std::vector<TokenId> ids) { return store_.emplace_back(std::move(ids)); }
  std::span<const TokenId> encoded(const std::string& text) {
    return stored(tokenizer_.encode(text, kPlain));
  }

  uint32_t answer_tokens(size_t items) const {
    return options_.answer_tokens > 0 ? options_.answer_tokens : static_cast<uint32_t>(24 + 12 * items);
  }

  void add_questions(const RecallDocument& document, const std::vector<size_t>& depths, const Lines& lines,
                     size_t length, uint64_t seed, std::vector<Asked>& asked) {
    const auto intro = encoded(document.intro);
    uint64_t fixed = frame_.open.size() + intro.size(), question_room = 0;
    std::vector<std::span<const TokenId>> needles;
    for (const auto* group : {&document.items, &document.distractors})
      for (const RecallItem& item : *group) {
        needles.push_back(encoded(item.line + "\n"));
        fixed += needles.back().size();
      }
    struct Tail {
      std::span<const TokenId> question, answer;
    };
    std::vector<Tail> tails;
    for (const RecallQuestion& question : document.questions) {
      tails.push_back({encoded("\n" + question.text), encoded(question.answer_start)});
      question_room = std::max<uint64_t>(question_room, tails.back().question.size() + frame_.close.size() +
                                                            tails.back().answer.size() +
                                                            answer_tokens(question.items.size()));
    }
    const uint64_t room = options_.lengths[length];
    require(room >= fixed + question_room, ErrorCode::invalid_argument,
            "{} tokens are too few: what is hidden and asked takes {}", room, fixed + question_room);
    const size_t count = lines.count_within(room - fixed - question_room);

    std::vector<std::pair<size_t, size_t>> places;  // line before which a needle lies, needle
    for (size_t i = 0; i < depths.size(); ++i)
      places.emplace_back(std::lround(options_.depths[depths[i]] * static_cast<double>(count)), i);
    place_distractors(document, count, seed, places);
    std::stable_sort(places.begin(), places.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });

    Prompt body{{frame_.open, intro}};
    size_t at = 0;
    for (const auto& [line, needle] : places) {
      body.parts.push_back(lines.lines(at, line));
      body.parts.push_back(needles[needle]);
      at = line;
    }
    body.parts.push_back(lines.lines(at, count));
    for (size_t q = 0; q < document.questions.size(); ++q) {
      const RecallQuestion& question = document.questions[q];
      Asked one{body, length, {}, {}, question.text};
      one.prompt.parts.insert(one.prompt.parts.end(), {tails[q].question, frame_.close, tails[q].answer});
      for (const size_t item : question.items) {
        one.depths.push_back(depths[item]);
        one.expected.push_back(document.items[item].expected);
      }
      asked.push_back(std::move(one));
    }
  }

  /// Anywhere, but the links of a chain in their order.
  void place_distractors(const RecallDocument& document, size_t count, uint64_t seed,
                         std::vector<std::pair<size_t, size_t>>& places) const {
    Pcg64 random(seed);
    const size_t chain = options_.task == RecallTask::variables ? document.items.size() : 1;
    for (size_t first = 0; first < document.distractors.size(); first += chain) {
      std::vector<size_t> at(chain);
      for (size_t& line : at) line = random.below(count + 1);
      std::sort(at.begin(), at.end());
      for (size_t i = 0; i < chain; ++i) places.emplace_back(at[i], document.items.size() + first + i);
    }
  }

  void answer(const Asked& asked, uint32_t sample, Sequence& sequence, TokenId last) {
    GenerateRequest request;
    request.prompt = {last};
    request.max_tokens = answer_tokens(asked.expected.size());
    request.sampling.temperature = 0;
    request.cancel = options_.cancel;
    const GenerateResult got = generate(sequence, &tokenizer_, request);
    require(got.stop != StopReason::cancelled, ErrorCode::cancelled, "stopped after {} questions",
            scores_.count());
    size_t held = 0;
    for (size_t i = 0; i < asked.expected.size(); ++i) {
      const bool there = answer_holds(got.text, asked.expected[i]);
      const size_t cell = asked.length * options_.depths.size() + asked.depths[i];
      held += there ? 1 : 0;
      held_[cell] += there ? 1 : 0;
      ++result_.cells[cell].items;
    }
    const double score = static_cast<double>(held) / static_cast<double>(asked.expected.size());
    scores_.add(score);
    result_.generated_tokens += got.generated_tokens;
    advance(request.max_tokens);
    if (!options_.on_answer) return;
    RecallOptions::Answer told{asked.prompt.size(), sample, {}, asked.question, got.text,
                               asked.expected,      score};
    for (const size_t depth : asked.depths) told.depths.push_back(options_.depths[depth]);
    options_.on_answer(told);
  }

  void plan_progress(uint64_t read, const std::vector<Asked>& asked, uint32_t sample) {
    uint64_t tokens = read;
    for (const Asked& one : asked) tokens += answer_tokens(one.expected.size());
    total_ = done_ + tokens * (options_.samples - sample);  // later samples will be much like this one
    advance(0);
  }
  void advance(uint64_t tokens) {
    done_ += tokens;
    if (options_.progress) options_.progress(std::min(done_, total_), total_);
  }

  SequenceRunner& runner_;
  const RecallOptions& options_;
  const Tokenizer& tokenizer_;
  PromptFrame frame_;
  std::deque<std::vector<TokenId>> store_;  // what the prompts of a sample point into
  Moments scores_;
  std::vector<uint64_t> held_;  // of each cell: items that answers held
  RecallResult result_;
  uint64_t done_ = 0, total_ = 0;
};

void check(const RecallOptions& options) {
  require(!options.lengths.empty() && !options.depths.empty() && options.samples > 0,
          ErrorCode::invalid_argument, "an evaluation needs at least one length, one depth and one sample");
  for (const double depth : options.depths)
    require(depth >= 0 && depth <= 1, ErrorCode::invalid_argument, "a depth lies between 0 and 1, not {}",
            depth);
}

}  // namespace

RecallResult recall(SequenceRunner& runner, const RecallOptions& options) {
  check(options);
  require(runner.tokenizer() != nullptr, ErrorCode::not_found,
          "the model has no tokenizer, which this evaluation needs");
  return Evaluation(runner, options).run();
}

}  // namespace mneme
