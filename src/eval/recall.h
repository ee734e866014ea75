// Recall evaluations: documents of chosen lengths with items hidden at chosen depths, questions about them,
// and how much of what was asked for the answers hold, by length and depth.
//
// What is counted:
//   n       questions. `needle`: one for each length, depth and sample. `multikey`: one for each length,
//           sample and item. The others: one for each length and sample.
//   score   mean over questions of the part of the expected items that the answer holds, 0 to 1.
//   stderr  sd of those parts / sqrt(n). Questions about one document count as independent.
//   cells   for each length and depth the part of the items there that answers held.
//
// A length counts all tokens that the model has to hold: template, text, question and answer. A depth of 0 is
// the beginning of the text, 1 its end; items beyond one a document are dealt out over the depths in turn.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/sequence.h"
#include "eval/recall_task.h"

namespace mneme {

struct RecallOptions {
  RecallTask task = RecallTask::needle;
  std::vector<uint64_t> lengths{1024, 2048, 4096};    // tokens
  std::vector<double> depths{0, 0.25, 0.5, 0.75, 1};  // 0 to 1
  uint32_t samples = 3;                               // documents for each length (and depth, for needle)
  uint32_t items = 4;                                 // see make_recall_document(); 1 for needle
  uint32_t distractors = 0;
  uint32_t answer_tokens = 0;  // most tokens of an answer; 0: 24 and 12 for each item asked for
  uint64_t seed = 0;
  std::filesystem::path text;  // haystack; empty: sentences of our own
  bool raw = false;            // without the model's chat template
  const CancelToken* cancel = nullptr;
  std::function<void(uint64_t done, uint64_t total)> progress;  // tokens read and generated; may be empty

  struct Answer {
    uint64_t length = 0;  // tokens of the prompt
    uint32_t sample = 0;
    std::vector<double> depths;  // of the items asked for
    std::string question, answer;
    std::vector<std::string> expected;
    double score = 0;
  };
  std::function<void(const Answer&)> on_answer;  // may be empty
};

struct RecallCell {
  uint64_t length = 0;
  double depth = 0;
  double score = 0;    // NaN where no item was asked for
  uint64_t items = 0;  // that were asked for here
};

struct RecallResult {
  double score = 0;
  uint64_t n = 0;
  double standard_error = 0;
  std::vector<RecallCell> cells;  // by length, then depth
  uint64_t prompt_tokens = 0;     // of all prompts
  uint64_t tokens_read = 0;       // of these, read by the model; the rest was kept from other prompts
  uint64_t generated_tokens = 0;
  double seconds = 0;
  bool complete = true;  // false: cancelled; the figures are of what was done until then
};

/// Deterministic: equal options, weights and instruction set give equal answers with any number of threads.
/// Throws Error: not_found (no tokenizer, no such file), limit (a length beyond the sequences' context),
/// invalid_argument (a length too short for the items, a bad option), unsupported (a chat template that does
/// not show the text as it is; use `raw`), cancelled (before the first answer).
RecallResult recall(SequenceRunner& runner, const RecallOptions& options);
/// The same on a model, with sessions of a context that holds the longest length.
RecallResult recall(const std::shared_ptr<const Model>& model, const RecallOptions& options,
                    SessionOptions session = {});

}  // namespace mneme
