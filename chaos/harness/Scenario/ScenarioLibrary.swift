// The scenarios that come with the program: the files of chaos/scenarios, built into the binary, so
// that it needs nothing beside itself. A test compares this list with the folder.

import Base

package enum ScenarioLibrary {
  /// By name, in the order of `skein chaos list`.
  private static let files: [(name: String, bytes: [UInt8])] = [
    ("quick", PackageResources.quick_chaos),
    ("leader-kill", PackageResources.leader_kill_chaos),
    ("node-kill", PackageResources.node_kill_chaos),
    ("minority-kill", PackageResources.minority_kill_chaos),
    ("majority-kill", PackageResources.majority_kill_chaos),
    ("all-kill", PackageResources.all_kill_chaos),
    ("elections", PackageResources.elections_chaos),
    ("lone-voter", PackageResources.lone_voter_chaos),
    ("power-loss", PackageResources.power_loss_chaos),
    ("leader-pause", PackageResources.leader_pause_chaos),
    ("node-pause", PackageResources.node_pause_chaos),
    ("restart", PackageResources.restart_chaos),
    ("rolling-restart", PackageResources.rolling_restart_chaos),
    ("isolate-leader", PackageResources.isolate_leader_chaos),
    ("isolate-leader-peers", PackageResources.isolate_leader_peers_chaos),
    ("isolate-follower", PackageResources.isolate_follower_chaos),
    ("halves", PackageResources.halves_chaos),
    ("ring", PackageResources.ring_chaos),
    ("one-way", PackageResources.one_way_chaos),
    ("cut-clients", PackageResources.cut_clients_chaos),
    ("slow-links", PackageResources.slow_links_chaos),
    ("throttled-links", PackageResources.throttled_links_chaos),
    ("drop-connections", PackageResources.drop_connections_chaos),
    ("half-open", PackageResources.half_open_chaos),
    ("packet-loss", PackageResources.packet_loss_chaos),
    ("packet-reorder", PackageResources.packet_reorder_chaos),
    ("packet-duplicate", PackageResources.packet_duplicate_chaos),
    ("disk-flip", PackageResources.disk_flip_chaos),
    ("disk-truncate", PackageResources.disk_truncate_chaos),
    ("disk-stale", PackageResources.disk_stale_chaos),
    ("disk-wipe", PackageResources.disk_wipe_chaos),
    ("wiped-voter", PackageResources.wiped_voter_chaos),
    ("disk-full", PackageResources.disk_full_chaos),
    ("disk-limit", PackageResources.disk_limit_chaos),
    ("members", PackageResources.members_chaos),
    ("transfer", PackageResources.transfer_chaos),
    ("client-crashes", PackageResources.client_crashes_chaos),
    ("slow-consumers", PackageResources.slow_consumers_chaos),
    ("short-leases", PackageResources.short_leases_chaos),
    ("extensions", PackageResources.extensions_chaos),
    ("returned", PackageResources.returned_chaos),
    ("retries", PackageResources.retries_chaos),
    ("keys", PackageResources.keys_chaos),
    ("moves", PackageResources.moves_chaos),
    ("comings-and-goings", PackageResources.comings_and_goings_chaos),
    ("amqp", PackageResources.amqp_chaos),
    ("amqp-kill", PackageResources.amqp_kill_chaos),
    ("full-speed", PackageResources.full_speed_chaos),
    ("mixed", PackageResources.mixed_chaos),
  ]

  package static var names: [String] { files.map(\.name) }

  package static func text(_ name: String) -> String? {
    files.first { $0.name == name }.map { String(decoding: $0.bytes, as: UTF8.self) }
  }

  /// - Throws: `ScenarioError` with the first line that is no text.
  static func text(of bytes: [UInt8], file: String) throws(ScenarioError) -> String {
    if let text = String(validating: bytes, as: UTF8.self) { return text }
    let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    let place = lines.firstIndex { String(validating: $0, as: UTF8.self) == nil } ?? 0
    throw ScenarioError(file: file, line: place + 1, field: "text", message: "is not UTF-8")
  }

  /// The scenario that comes with the program under this name, or that is in the file of this path.
  /// - Throws: `ScenarioError`, or `ChaosError` if there is none.
  package static func scenario(_ word: String) throws -> Scenario {
    if let text = text(word) {
      return try ScenarioParser.parse(text, name: word, file: "chaos/scenarios/\(word).chaos")
    }
    guard word.contains("/") || word.hasSuffix(".chaos") else {
      let nearest = nearestName(to: word, in: names).map { ", did you mean \($0)?" } ?? ""
      throw ChaosError("there is no scenario \"\(word)\"\(nearest) (skein chaos list shows them)")
    }
    let text = try Self.text(of: try ClusterFiles.read(word), file: word)
    let file = word.split(separator: "/").last.map(String.init) ?? word
    let name = file.hasSuffix(".chaos") ? String(file.dropLast(6)) : file
    return try ScenarioParser.parse(text, name: name, file: word)
  }
}
