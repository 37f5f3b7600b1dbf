Feature: Handoff
  Handoff files say what serves where, and a successor takes over by them.

  @OC-POOL-3050
  Scenario: Each replica has a handoff of its own, and it goes with the replica
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct" and 2 replicas
    Then pool "pool-0" should have 2 handoff files
    When I drain pool "pool-0" within 1 s
    Then no handoff file should exist

  @OC-POOL-3051
  Scenario: A successor adopts what a killed hive left
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct" and 2 replicas
    When the hive is killed
    And a new hive starts in its place
    Then pool "pool-0" should have kept its processes

  @OC-POOL-3051
  Scenario: A successor reaps an orphan that does not answer
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    When the hive is killed
    And one of the orphans stops answering
    And a new hive starts in its place
    Then the orphan should be gone
    And pool "pool-0" should become "ready"

  @OC-POOL-3051
  Scenario: A foreign handoff file harms nobody
    Given a foreign handoff file of a process that is not ours
    And a malformed handoff file
    And the hive is running
    Then the foreign process should live
    And the malformed file should be counted and left as it was
    When I preload pool "pool-0" with model "llama-3.1-8b-instruct"
    Then pool "pool-0" should become "ready"
