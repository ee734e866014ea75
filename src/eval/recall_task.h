// What the recall evaluations hide in a text and ask for, after needle-in-a-haystack (Kamradt 2023) and the
// retrieval and tracing tasks of RULER (Hsieh et al. 2024, arXiv:2404.06654, §3 and appendix B), with texts
// of our own:
//
//   needle      one key with one number; asked for once
//   multikey    several keys with a number each; one is asked for, the others are hard negatives
//   multivalue  one key with several numbers; all of them are asked for
//   multiquery  several keys with a number each; all are asked for in one question
//   variables   X = 12345, Y = X, Z = Y, ...: all variables that hold the number
//
// Scoring is RULER's: the part of the expected strings that occur in the answer, without regard to case.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mneme {

enum class RecallTask { needle, multikey, multivalue, multiquery, variables };
std::string_view to_string(RecallTask task) noexcept;
std::optional<RecallTask> recall_task_from(std::string_view name) noexcept;

/// One line to hide.
struct RecallItem {
  std::string line;      // "The secret number of quiet-harbour is 4920184."
  std::string expected;  // "4920184": what an answer has to hold; empty for a distractor
};

struct RecallQuestion {
  std::string text;  // the question behind the document
  std::string
      answer_start;  // how the answer begins, so that models without instruction tuning know what to do
  std::vector<size_t> items;  // whose `expected` count
};

/// What is put into one haystack and asked about it.
struct RecallDocument {
  std::string intro;              // before the haystack
  std::vector<RecallItem> items;  // those that are asked for; in the order of the text for `variables`
  std::vector<RecallItem> distractors;
  std::vector<RecallQuestion> questions;
};

/// `items`: keys (multikey, multiquery), values (multivalue) or variables (variables); needle has one.
/// `distractors`: further keys, or for variables further chains as long as the first. Equal arguments give
/// equal documents; all keys, numbers and names of a document differ. Throws Error(invalid_argument) for
/// more than 1000 of either, or no item.
RecallDocument make_recall_document(RecallTask task, uint32_t items, uint32_t distractors, uint64_t seed);

/// Whether `answer` holds `expected`, ASCII letters of either case being equal.
bool answer_holds(std::string_view answer, std::string_view expected);

}  // namespace mneme
