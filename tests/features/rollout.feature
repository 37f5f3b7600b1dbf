Feature: Rollout
  Hosts are brought to what is declared; what fails is told, and changes nothing.

  @SK-ROLL-1001
  Scenario: A hive is installed
    Given 1 fresh host(s)
    And skep "1.0" is declared
    When I sync
    Then every host should be "installed"
    And every host should run skep "1.0"

  @SK-ROLL-1001
  Scenario: Many hives are installed at once
    Given 3 fresh host(s)
    When I sync
    Then every host should be "installed"
    And every host should run skep "1.0"

  @SK-ROLL-1002
  Scenario: A second run does nothing
    Given 3 fresh host(s)
    And skep "1.0" is installed
    When I sync
    Then every host should be "already_installed"

  @SK-ROLL-1003
  Scenario: Workers are installed
    Given 1 fresh host(s)
    And the worker "llama-cpp" of version "b1" with features "cpu" is declared
    And the worker "vllm" of version "0.11" with features "cpu" is declared
    When I sync
    Then every host should be "installed"
    And the manifest should list the workers "llama-cpp b1, vllm 0.11"

  @SK-ROLL-1003
  Scenario: An extra worker is removed when that is asked for
    Given 1 fresh host(s)
    And the worker "vllm" of version "0.11" with features "cpu" is declared
    And skep "1.0" is installed
    When no worker is declared
    And the option remove_extra
    And I sync
    Then the manifest should list the workers "-"

  @SK-ROLL-1004
  Scenario Outline: Upgrade and downgrade
    Given 1 fresh host(s)
    And skep "<before>" is installed
    When skep "<after>" is declared
    And I sync
    Then every host should be "upgraded"
    And every host should run skep "<after>"

    Examples:
      | before | after |
      | 1.0    | 2.0   |
      | 2.0    | 1.0   |

  @SK-ROLL-1004
  Scenario: Rollback
    Given 1 fresh host(s)
    And skep "1.0" is installed
    And skep "2.0" is installed
    When the option rollback
    And I sync
    Then every host should be "rolled_back"
    And every host should run skep "1.0"

  @SK-ROLL-1004
  Scenario: Force installs again what is there
    Given 1 fresh host(s)
    And skep "1.0" is installed
    When the option force
    And I sync
    Then every host should run skep "1.0"

  @SK-ROLL-1005
  Scenario: A dry run changes nothing
    Given 1 fresh host(s)
    When I look at what would be done
    Then every host should be "planned"
    And the host should have nothing of skep

  @SK-ROLL-1006
  Scenario: An unreachable host is unknown, and the others go on
    Given 3 fresh host(s)
    And the host cannot be reached
    When I sync
    Then the host should be "unknown" with the code "host_unreachable"
    And the other hosts should be "installed"

  @SK-ROLL-1006
  Scenario: A program that does not run is never switched to
    Given 1 fresh host(s)
    And skep "1.0" is installed
    And the new program refuses to run
    And skep "2.0" is declared
    When I sync
    Then the host should be "failed" with the code "step_failed"
    And the error should say "verify failed"
    And the host should still have skep "1.0"

  @SK-ROLL-1006
  Scenario: A build that fails shows its last lines
    Given 1 fresh host(s)
    And the worker "llama-cpp" of version "b1" with features "cpu" is declared
    And the engine's build fails
    When I sync
    Then the host should be "failed" with the code "step_failed"
    And the error should say "compile error at line 7"

  @SK-ROLL-1006
  Scenario: A home that cannot be written
    Given 1 fresh host(s)
    And the host's home cannot be written
    When I sync
    Then the host should be "failed" with the code "impossible_here"
    And the error should say "cannot be written"

  @SK-ROLL-1006
  Scenario: A wrong checksum
    Given 1 fresh host(s)
    And a release with a wrong checksum is declared
    When I sync
    Then the host should be "failed" with the code "step_failed"
    And the host should have nothing of skep

  @SK-ROLL-1007
  Scenario Outline: Features that the host does not have
    Given 1 fresh host(s)
    And the worker "llama-cpp" of version "b1" with features "<features>" is declared
    When I sync
    Then the host should be "failed" with the code "impossible_here"
    And the error should say "<missing>"

    Examples:
      | features  | missing     |
      | metal     | wants metal |
      | cpu, rocm | wants rocm  |

  @SK-ROLL-1008
  Scenario: Noise at login does not disturb
    Given 1 fresh host(s)
    And the login shell prints a banner
    When I sync
    Then every host should be "installed"

  @SK-ROLL-1009
  Scenario: Two syncs at once
    Given 1 fresh host(s)
    And skep "1.0" is declared
    When I sync twice at once
    Then one sync should have done the work and both should agree
