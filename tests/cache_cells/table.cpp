// SPDX-License-Identifier: MIT
#include "tests/cache_cells/table.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace headwise::testing {

namespace {

constexpr const char* kKinds[] = {"contiguous", "growing",      "ring",   "shared",  "latent",
                                  "paged",      "latent_paged", "KvRows", "KvBlocks"};

/// Writes the table where HEADWISE_CELLS_TABLE says, when all tests have passed.
class Writer : public ::testing::Environment {
 public:
  void TearDown() override {
    const char* path = std::getenv("HEADWISE_CELLS_TABLE");
    if (!path || ::testing::UnitTest::GetInstance()->Failed()) return;
    std::ofstream file(path);
    file << CellTable::instance().markdown();
    if (!file.flush()) ADD_FAILURE() << "cannot write " << path;
  }
};
const auto* const writer = ::testing::AddGlobalTestEnvironment(new Writer);

}  // namespace

std::string CellTable::markdown() const {
  std::string text = "| operation |", rule = "|---|";
  for (const char* kind : kKinds) text += std::string(" ") + kind + " |", rule += "---|";
  text += "\n" + rule + "\n";
  std::vector<std::string> reasons;
  for (const auto& [operation, row] : rows_) {
    text += "| " + operation + " |";
    for (const char* kind : kKinds) {
      const auto found = row.find(kind);
      if (found == row.end()) {
        text += " |";
        continue;
      }
      const Cell& cell = found->second;
      if (cell.reason.empty()) {
        text += " " + std::to_string(cell.storages.size()) + " types |";
        continue;
      }
      auto at = std::ranges::find(reasons, cell.reason);
      if (at == reasons.end()) at = reasons.insert(reasons.end(), cell.reason);
      text += " – (" + std::to_string(at - reasons.begin() + 1) + ") |";
    }
    text += "\n";
  }
  text += "\n";
  for (std::size_t i = 0; i < reasons.size(); ++i)
    text += "(" + std::to_string(i + 1) + ") " + reasons[i] + (i + 1 < reasons.size() ? "  \n" : "\n");
  return text;
}

}  // namespace headwise::testing
