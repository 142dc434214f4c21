// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <string>
#include <vector>

// What the tests of cells have found, for the table in the documentation.

namespace headwise::testing {

class CellTable {
 public:
  static CellTable& instance() {
    static CellTable table;
    return table;
  }

  /// An operation that a kind has passed with a storage type.
  void passed(const std::string& operation, const std::string& kind, const std::string& storage) {
    at(operation)[kind].storages.push_back(storage);
  }
  /// An operation that a kind does not have, which the test has seen the compiler refuse.
  void refused(const std::string& operation, const std::string& kind, const std::string& reason) {
    at(operation)[kind].reason = reason;
  }

  /// Markdown: a row per operation, a column per kind.
  std::string markdown() const;

 private:
  struct Cell {
    std::vector<std::string> storages;
    std::string reason;
  };
  using Row = std::map<std::string, Cell>;

  Row& at(const std::string& operation) {
    for (auto& [name, row] : rows_)
      if (name == operation) return row;
    return rows_.emplace_back(operation, Row()).second;
  }

  std::vector<std::pair<std::string, Row>> rows_;
};

}  // namespace headwise::testing
