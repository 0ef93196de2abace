// "Did you mean": the nearest known name to one that is unknown. Used for command-line options,
// configuration keys and queue settings.

/// The name in `known` with the fewest edits (insert, delete, replace, swap) from `name`, if that
/// is at most a third of its length, rounded up; ties go to the first.
package func nearestName(to name: String, in known: [String]) -> String? {
  let limit = (name.count + 2) / 3
  var best: (name: String, edits: Int)?
  for candidate in known {
    let edits = editDistance(Array(name), Array(candidate))
    if edits <= limit, edits < best?.edits ?? .max { best = (candidate, edits) }
  }
  return best?.name
}

/// Damerau-Levenshtein distance with adjacent swaps (optimal string alignment).
private func editDistance(_ left: [Character], _ right: [Character]) -> Int {
  var rows = [[Int]](
    repeating: [Int](repeating: 0, count: right.count + 1), count: left.count + 1)
  for row in 0...left.count { rows[row][0] = row }
  for column in 0...right.count { rows[0][column] = column }
  guard !left.isEmpty, !right.isEmpty else { return max(left.count, right.count) }
  for row in 1...left.count {
    for column in 1...right.count {
      let replace = rows[row - 1][column - 1] + (left[row - 1] == right[column - 1] ? 0 : 1)
      var fewest = min(replace, rows[row - 1][column] + 1, rows[row][column - 1] + 1)
      if row > 1, column > 1, left[row - 1] == right[column - 2], left[row - 2] == right[column - 1]
      {
        fewest = min(fewest, rows[row - 2][column - 2] + 1)
      }
      rows[row][column] = fewest
    }
  }
  return rows[left.count][right.count]
}
