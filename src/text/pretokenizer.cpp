#include "text/pretokenizer.h"

#include <algorithm>

#include "core/fail.h"
#include "text/normalizer.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace mneme {

namespace {

using Kind = PreTokenizerStep::Kind;

struct Part {
  size_t begin, end;
  bool match;
};

// Collects matches and the stretches between them, so that together they cover the text.
class Parts {
 public:
  explicit Parts(size_t size) : size_(size) {}
  void match(size_t begin, size_t end) {
    if (begin > done_) parts_.push_back({done_, begin, false});
    parts_.push_back({begin, end, true});
    done_ = end;
  }
  std::vector<Part> take() {
    if (done_ < size_) parts_.push_back({done_, size_, false});
    return std::move(parts_);
  }

 private:
  size_t size_, done_ = 0;
  std::vector<Part> parts_;
};

// Every character that satisfies `predicate` is a match of its own.
template <class Predicate>
std::vector<Part> match_chars(std::string_view text, Predicate predicate) {
  Parts parts(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text.substr(at));
    if (predicate(c.code)) parts.match(at, at + c.length);
    at += c.length;
  }
  return parts.take();
}

std::vector<Part> match_literal(std::string_view text, std::string_view literal) {
  Parts parts(text.size());
  if (!literal.empty())
    for (size_t at = 0; (at = text.find(literal, at)) != std::string_view::npos; at += literal.size())
      parts.match(at, at + literal.size());
  return parts.take();
}

std::vector<Part> match_regex(std::string_view text, const Regex& regex) {
  Parts parts(text.size());
  regex.for_each_match(text, [&](size_t begin, size_t end) { parts.match(begin, end); });
  return parts.take();
}

// \w+|[^\w\s]+ : runs of word characters and runs of symbols.
std::vector<Part> match_word_runs(std::string_view text) {
  const auto type_at = [&](size_t at, uint32_t& length) {
    const Utf8Char c = decode_utf8(text.substr(at));
    length = c.length;
    return is_word(c.code) ? 2 : is_space(c.code) ? 0 : 1;
  };
  Parts parts(text.size());
  for (size_t at = 0; at < text.size();) {
    uint32_t length;
    const int type = type_at(at, length);
    size_t end = at + length;
    while (end < text.size() && type_at(end, length) == type) end += length;
    if (type != 0) parts.match(at, end);
    at = end;
  }
  return parts.take();
}

std::vector<Part> merge_contiguous(const std::vector<Part>& parts) {
  std::vector<Part> out;
  for (const Part& part : parts) {
    if (!out.empty() && out.back().match == part.match)
      out.back().end = part.end;
    else
      out.push_back(part);
  }
  return out;
}

// A separator joins the part before it; of several separators in a row only the first does.
std::vector<Part> merge_with_previous(const std::vector<Part>& parts) {
  std::vector<Part> out;
  bool after_match = false;
  for (const Part& part : parts) {
    if (part.match && !after_match && !out.empty())
      out.back().end = part.end;
    else
      out.push_back(part);
    after_match = part.match;
  }
  return out;
}

std::vector<Part> merge_with_next(const std::vector<Part>& parts) {
  std::vector<Part> out;
  bool before_match = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (part->match && !before_match && !out.empty())
      out.back().begin = part->begin;
    else
      out.push_back(*part);
    before_match = part->match;
  }
  std::reverse(out.begin(), out.end());
  return out;
}

void emit(std::string_view text, std::vector<Part> parts, SplitBehavior behavior, bool invert,
          std::vector<std::string_view>& words) {
  if (invert)
    for (Part& part : parts) part.match = !part.match;
  switch (behavior) {
    case SplitBehavior::isolated:
      break;
    case SplitBehavior::removed:
      std::erase_if(parts, [](const Part& part) { return part.match; });
      break;
    case SplitBehavior::contiguous:
      parts = merge_contiguous(parts);
      break;
    case SplitBehavior::merged_with_previous:
      parts = merge_with_previous(parts);
      break;
    case SplitBehavior::merged_with_next:
      parts = merge_with_next(parts);
      break;
  }
  for (const Part& part : parts)
    if (part.end > part.begin) words.push_back(text.substr(part.begin, part.end - part.begin));
}

void run_metaspace(const PreTokenizerStep& step, std::string_view text, TextPlace place, Words& out) {
  std::string replaced = replace_all(text, " ", step.pattern);
  using Prepend = PreTokenizerStep::Prepend;
  const bool wants = (step.prepend == Prepend::always && place != TextPlace::middle) ||
                     (step.prepend == Prepend::first && place == TextPlace::start);
  if (wants && !replaced.starts_with(step.pattern)) replaced.insert(0, step.pattern);
  const std::string& stored = out.storage.emplace_back(std::move(replaced));
  if (step.cut)
    emit(stored, match_literal(stored, step.pattern), SplitBehavior::merged_with_next, false, out.words);
  else if (!stored.empty())
    out.words.push_back(stored);
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStep> steps) {
  for (size_t i = 0; i < steps.size(); ++i) {
    Step step{std::move(steps[i]), Scanner::none, nullptr};
    if (step.spec.kind == Kind::byte_level) {
      require(i + 1 == steps.size(), ErrorCode::unsupported,
              "a ByteLevel pre-tokenizer is supported only as the last step, but it is step {} of {}", i + 1,
              steps.size());
      byte_level_ = true;
    } else if (step.spec.kind == Kind::split_regex) {
      const bool plain = step.spec.behavior == SplitBehavior::isolated && !step.spec.invert;
      if (plain && step.spec.pattern == kGpt2Pattern)
        step.scanner = Scanner::gpt2;
      else if (plain && step.spec.pattern == kLlama3Pattern)
        step.scanner = Scanner::llama3;
      else if (plain && step.spec.pattern == kQwen2Pattern)
        step.scanner = Scanner::qwen2;
      else
        step.regex = std::make_unique<Regex>(step.spec.pattern);
    } else if (step.spec.kind == Kind::metaspace) {
      require(!step.spec.pattern.empty(), ErrorCode::corrupt,
              "the Metaspace pre-tokenizer has no replacement character");
    }
    steps_.push_back(std::move(step));
  }
}

void PreTokenizer::split(std::string_view text, TextPlace place, Words& out) const {
  out.words.clear();
  out.storage.clear();
  if (text.empty()) return;
  out.words.push_back(text);
  std::vector<std::string_view> before;
  for (const Step& step : steps_) {
    if (step.spec.kind == Kind::byte_level) continue;
    before.swap(out.words);
    out.words.clear();
    for (size_t i = 0; i < before.size(); ++i) run(step, before[i], i == 0 ? place : TextPlace::later, out);
  }
}

void PreTokenizer::run(const Step& step, std::string_view text, TextPlace place, Words& out) const {
  const PreTokenizerStep& spec = step.spec;
  switch (spec.kind) {
    case Kind::byte_level:
      break;
    case Kind::prefix_space:
      if (text.starts_with(' ') || place == TextPlace::middle)
        out.words.push_back(text);
      else
        out.words.push_back(out.storage.emplace_back(" ").append(text));
      break;
    case Kind::split_literal:
      emit(text, match_literal(text, spec.pattern), spec.behavior, spec.invert, out.words);
      break;
    case Kind::split_regex:
      if (step.scanner == Scanner::gpt2)
        split_gpt2(text, out.words);
      else if (step.scanner != Scanner::none)
        split_llama3(text, step.scanner == Scanner::llama3 ? 3 : 1, out.words);
      else
        emit(text, match_regex(text, *step.regex), spec.behavior, spec.invert, out.words);
      break;
    case Kind::digits:
      emit(text, match_chars(text, is_number),
           spec.individual ? SplitBehavior::isolated : SplitBehavior::contiguous, false, out.words);
      break;
    case Kind::punctuation:
      emit(text, match_chars(text, is_punctuation), spec.behavior, false, out.words);
      break;
    case Kind::whitespace:
      emit(text, match_word_runs(text), SplitBehavior::removed, true, out.words);
      break;
    case Kind::whitespace_split:
      emit(text, match_chars(text, is_space), SplitBehavior::removed, false, out.words);
      break;
    case Kind::metaspace:
      run_metaspace(spec, text, place, out);
      break;
  }
}

}  // namespace mneme
